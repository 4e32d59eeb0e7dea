/* librdkafka as a client of the comparison: writes records to partition 0 of a topic, or reads it
 * from the start, and prints records, nanoseconds, and nanoseconds of processors.
 *
 *   librdkafka produce|fetch BOOTSTRAP TOPIC RECORDS
 *
 * Linked with the library of the confluent-kafka wheel, which comes without its header: what is
 * used of its stable interface is declared here. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

typedef struct rd_kafka_s rd_kafka_t;
typedef struct rd_kafka_topic_s rd_kafka_topic_t;
typedef struct rd_kafka_conf_s rd_kafka_conf_t;
typedef struct rd_kafka_topic_conf_s rd_kafka_topic_conf_t;
typedef struct {
    int err;
    rd_kafka_topic_t *topic;
    int32_t partition;
    void *payload;
    size_t len;
    void *key;
    size_t key_len;
    int64_t offset;
    void *private_part;
} rd_kafka_message_t;

enum { PRODUCER = 0, CONSUMER = 1, COPY = 2, OFFSET_BEGINNING = -2, END_OF_PARTITION = -191 };

rd_kafka_conf_t *rd_kafka_conf_new(void);
int rd_kafka_conf_set(rd_kafka_conf_t *, const char *, const char *, char *, size_t);
void rd_kafka_conf_set_dr_msg_cb(rd_kafka_conf_t *, void (*)(rd_kafka_t *,
                                                             const rd_kafka_message_t *, void *));
rd_kafka_t *rd_kafka_new(int, rd_kafka_conf_t *, char *, size_t);
rd_kafka_topic_t *rd_kafka_topic_new(rd_kafka_t *, const char *, rd_kafka_topic_conf_t *);
int rd_kafka_produce(rd_kafka_topic_t *, int32_t, int, void *, size_t, const void *, size_t,
                     void *);
int rd_kafka_poll(rd_kafka_t *, int);
int rd_kafka_flush(rd_kafka_t *, int);
int rd_kafka_consume_start(rd_kafka_topic_t *, int32_t, int64_t);
ssize_t rd_kafka_consume_batch(rd_kafka_topic_t *, int32_t, int, rd_kafka_message_t **, size_t);
void rd_kafka_message_destroy(rd_kafka_message_t *);
const char *rd_kafka_err2str(int);

enum { KEY_LEN = 16, VALUE_LEN = 100, BATCH = 10000, PATIENCE_MS = 30000 };

static void fail(const char *what) {
    fprintf(stderr, "librdkafka: %s\n", what);
    exit(1);
}

static int64_t nanoseconds(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static int64_t began, began_cpu;

static void begin(void) {
    began = nanoseconds(CLOCK_MONOTONIC);
    began_cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
}

static void report(long records) {
    int64_t cpu = nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - began_cpu;
    int64_t wall = nanoseconds(CLOCK_MONOTONIC) - began;
    printf("%ld %lld %lld\n", records, (long long)wall, (long long)cpu);
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value) {
    char error[256];
    if (rd_kafka_conf_set(conf, name, value, error, sizeof error) != 0)
        fail(error);
}

static long delivered, refused;

static void on_delivery(rd_kafka_t *client, const rd_kafka_message_t *message, void *context) {
    (void)client, (void)context;
    if (message->err)
        refused++;
    else
        delivered++;
}

/* The next number, in the digits of the key. */
static void count_up(char *key) {
    int at = KEY_LEN - 1;
    while (key[at] == '9')
        key[at--] = '0';
    key[at]++;
}

static rd_kafka_t *new_client(int type, rd_kafka_conf_t *conf) {
    char error[512];
    rd_kafka_t *client = rd_kafka_new(type, conf, error, sizeof error);
    if (!client)
        fail(error);
    return client;
}

static void produce(rd_kafka_conf_t *conf, const char *name, long records) {
    set(conf, "acks", "all");
    set(conf, "enable.idempotence", "true");
    set(conf, "linger.ms", "5");
    set(conf, "batch.size", "1000000");
    set(conf, "batch.num.messages", "1000000");
    set(conf, "queue.buffering.max.messages", "1000000");
    set(conf, "queue.buffering.max.kbytes", "65536");
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_t *client = new_client(PRODUCER, conf);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(client, name, NULL);
    char key[KEY_LEN], value[VALUE_LEN];
    memset(key, '0', sizeof key);
    memset(value, 'v', sizeof value);
    /* The first record waits for connections and a producer id: it is not measured. */
    for (long number = 0; number <= records; number++) {
        while (rd_kafka_produce(topic, 0, COPY, value, sizeof value, key, sizeof key, NULL) != 0)
            rd_kafka_poll(client, 1);
        count_up(key);
        if (number == 0) {
            rd_kafka_flush(client, PATIENCE_MS);
            begin();
        }
        if (number % 1024 == 0)
            rd_kafka_poll(client, 0);
    }
    rd_kafka_flush(client, 4 * PATIENCE_MS);
    if (refused != 0 || delivered != records + 1)
        fail("records were not acknowledged");
    report(records);
}

/* From the first record on. */
static void fetch(rd_kafka_conf_t *conf, const char *name, long records) {
    set(conf, "check.crcs", "true");
    set(conf, "fetch.message.max.bytes", "8388608");
    set(conf, "queued.max.messages.kbytes", "262144");
    set(conf, "queued.min.messages", "1000000");
    rd_kafka_t *client = new_client(CONSUMER, conf);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(client, name, NULL);
    if (rd_kafka_consume_start(topic, 0, OFFSET_BEGINNING) != 0)
        fail("no start");
    static rd_kafka_message_t *messages[BATCH];
    long found = 0, silent_ms = 0;
    size_t bytes = 0;
    while (found < records) {
        ssize_t count = rd_kafka_consume_batch(topic, 0, 500, messages, BATCH);
        if (count > 0 && found == 0)
            begin();
        silent_ms = count > 0 ? 0 : silent_ms + 500;
        if (silent_ms > PATIENCE_MS)
            fail("records are missing");
        for (ssize_t at = 0; at < count; at++) {
            rd_kafka_message_t *message = messages[at];
            if (message->err && message->err != END_OF_PARTITION)
                fail(rd_kafka_err2str(message->err));
            if (!message->err) {
                found++;
                bytes += message->key_len + message->len;
            }
            rd_kafka_message_destroy(message);
        }
    }
    if (bytes != (size_t)found * (KEY_LEN + VALUE_LEN))
        fail("wrong records");
    report(found);
}

int main(int count, char **words) {
    if (count != 5)
        fail("produce|fetch BOOTSTRAP TOPIC RECORDS");
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", words[2]);
    long records = atol(words[4]);
    if (strcmp(words[1], "produce") == 0)
        produce(conf, words[3], records);
    else
        fetch(conf, words[3], records);
    /* Tearing the client down is nobody's measurement. */
    return 0;
}
