"""librdkafka told what to do line by line: its client, and the mock of a cluster that it has.

    mock NODES                         starts a cluster; its bootstrap list
    topic NAME                         makes a topic of one partition in it
    leader NAME NODE                   has another node lead it
    speak API VERSION                  has it speak no newer version of an API
    write SERVERS TOPIC CODEC FIRST COUNT    idempotent; see `record`
    read SERVERS TOPIC COUNT           the first records, one a line: offset, time, key, value, headers

Answers lines, then `ok`, or `error` with the reason. Needs the confluent-kafka wheel.
"""

import ctypes
import glob
import os
import sys

import confluent_kafka
from confluent_kafka import Consumer, Producer, TopicPartition

FIRST_TIME_MS = 1700000000000


def record(number):
    """A record by its number; every tenth one is a tombstone."""
    value = None if number % 10 == 9 else b"%d" % number * 20
    return {
        "key": b"key %d" % (number % 50),
        "value": value,
        "headers": [("a", b"%d" % number), ("a", None)],
        "timestamp": FIRST_TIME_MS + number,
    }


def library():
    """The one inside the wheel: it exports the mock, which the Python part does not."""
    beside = os.path.dirname(os.path.dirname(confluent_kafka.__file__))
    [path] = glob.glob(os.path.join(beside, "confluent_kafka.libs", "librdkafka-*.so*"))
    library = ctypes.CDLL(path)
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in [
        ("rd_kafka_conf_new", pointer, []),
        ("rd_kafka_new", pointer, [number, pointer, text, ctypes.c_size_t]),
        ("rd_kafka_mock_cluster_new", pointer, [pointer, number]),
        ("rd_kafka_mock_cluster_bootstraps", text, [pointer]),
        ("rd_kafka_mock_topic_create", number, [pointer, text, number, number]),
        ("rd_kafka_mock_partition_set_leader", number, [pointer, text, number, number]),
        ("rd_kafka_mock_set_apiversion", number, [pointer] + [ctypes.c_int16] * 3),
    ]:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Mock:
    def __init__(self, nodes):
        self.library = library()
        reason = ctypes.create_string_buffer(512)
        client = self.library.rd_kafka_new(0, self.library.rd_kafka_conf_new(), reason, 512)
        if not client:
            raise RuntimeError(reason.value.decode())
        self.cluster = self.library.rd_kafka_mock_cluster_new(client, nodes)

    def servers(self):
        return self.library.rd_kafka_mock_cluster_bootstraps(self.cluster).decode()

    def topic(self, name):
        check(self.library.rd_kafka_mock_topic_create(self.cluster, name.encode(), 1, 1))

    def leader(self, name, node):
        set_leader = self.library.rd_kafka_mock_partition_set_leader
        check(set_leader(self.cluster, name.encode(), 0, node))

    def speak(self, api, version):
        check(self.library.rd_kafka_mock_set_apiversion(self.cluster, api, 0, version))


def check(code):
    if code != 0:
        raise RuntimeError(f"librdkafka answers {code}")


def write(servers, topic, codec, first, count):
    failures = []
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "enable.idempotence": True,
            "compression.type": codec,
            "linger.ms": 5,
        }
    )
    for number in range(first, first + count):
        producer.produce(
            topic,
            partition=0,
            on_delivery=lambda error, _: error and failures.append(error),
            **record(number),
        )
    if producer.flush(30) or failures:
        raise RuntimeError(f"not delivered: {failures[:1]}")


def word(data):
    return "-" if data is None else "=" + data.hex()


def read(servers, topic, count):
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": "nobody", "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    while count > 0:
        found = consumer.consume(count, 30)
        if not found:
            raise RuntimeError(f"{count} records are missing")
        for message in found:
            if message.error():
                raise RuntimeError(message.error())
            words = [message.offset(), message.timestamp()[1]]
            words += [word(message.key()), word(message.value())]
            for name, value in message.headers() or []:
                words += [word(name.encode()), word(value)]
            print(*words)
        count -= len(found)
    consumer.close()


def main():
    mock = None
    for line in sys.stdin:
        command, *words = line.split()
        words = [int(word) if word.isdigit() else word for word in words]
        try:
            if command == "mock":
                mock = Mock(*words)
                print(mock.servers())
            elif command in ("topic", "leader", "speak"):
                getattr(mock, command)(*words)
            else:
                {"write": write, "read": read}[command](*words)
            print("ok", flush=True)
        except Exception as error:  # whatever it is, whoever asked has to know
            print("error", error, flush=True)


main()
