import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka's own clients, told what to do line by line.
 *
 * <p>Start it with the bootstrap list and a folder for states. It reads commands of words, one a
 * line, and answers each with any number of lines and then "ok", or "error" and a message. Bytes
 * are written as {@link Text} does.
 */
public final class Peer {
    private final String bootstrap;
    private final Admin admin;
    private final Streams streams;
    private final PrintStream out;

    private Peer(String bootstrap, String folder, PrintStream out) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
        this.streams = new Streams(bootstrap, folder);
        this.out = out;
    }

    public static void main(String[] arguments) throws Exception {
        // What libraries print must not come between the answers.
        PrintStream out = new PrintStream(System.out, false, StandardCharsets.US_ASCII);
        System.setOut(System.err);
        Peer peer = new Peer(arguments[0], arguments[1], out);
        BufferedReader in =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            try {
                peer.run(line.split(" "));
                out.println("ok");
            } catch (Exception error) {
                Throwable cause = error instanceof ExecutionException ? error.getCause() : error;
                out.println("error " + cause.toString().replace('\n', ' '));
            }
            out.flush();
        }
        // Threads of a broken client shall not keep the process.
        Runtime.getRuntime().halt(0);
    }

    private void run(String[] words) throws Exception {
        switch (words[0]) {
            case "create" -> create(words);
            case "delete" -> delete(words[1]);
            case "leader" -> out.println(leader(partition(words)));
            case "bounds" -> bounds(partition(words));
            case "trim" ->
                    admin.deleteRecords(
                                    Map.of(
                                            partition(words),
                                            RecordsToDelete.beforeOffset(Long.parseLong(words[3]))))
                            .all()
                            .get();
            case "send" -> send(partition(words), words);
            case "transaction" -> transaction(partition(words), words);
            case "settle" -> settle(partition(words));
            case "read" -> read(partition(words), words[3]);
            case "streams-write" -> streams.write(words[1], words[2], input(words, 3), out);
            case "streams-restore" -> streams.restore(words[1], words[2], out);
            case "streams-time" -> streams.time(words[1], out);
            default -> throw new IllegalArgumentException("unknown command " + words[0]);
        }
    }

    private static TopicPartition partition(String[] words) {
        return new TopicPartition(words[1], Integer.parseInt(words[2]));
    }

    /** create TOPIC PARTITIONS [NAME=VALUE...]: returns when every partition has a leader. */
    private void create(String[] words) throws Exception {
        Map<String, String> configs = new HashMap<>();
        for (int at = 3; at < words.length; at++) {
            String[] pair = words[at].split("=", 2);
            configs.put(pair[0], pair[1]);
        }
        int partitions = Integer.parseInt(words[2]);
        NewTopic topic = new NewTopic(words[1], Optional.of(partitions), Optional.empty());
        admin.createTopics(List.of(topic.configs(configs))).all().get();
        for (int number = 0; number < partitions; number++) {
            while (leader(new TopicPartition(words[1], number)) < 0) {
                Thread.sleep(20);
            }
        }
    }

    /** delete TOPIC: returns when no broker that was asked knows it. */
    private void delete(String topic) throws Exception {
        admin.deleteTopics(List.of(topic)).all().get();
        while (admin.listTopics().names().get().contains(topic)) {
            Thread.sleep(20);
        }
    }

    private int leader(TopicPartition at) throws Exception {
        try {
            var topics = admin.describeTopics(List.of(at.topic())).allTopicNames().get();
            var leader = topics.get(at.topic()).partitions().get(at.partition()).leader();
            return leader == null ? -1 : leader.id();
        } catch (ExecutionException error) {
            if (error.getCause() instanceof UnknownTopicOrPartitionException) {
                return -1;
            }
            throw error;
        }
    }

    private long offset(TopicPartition at, OffsetSpec spec, IsolationLevel level) throws Exception {
        return admin.listOffsets(Map.of(at, spec), new ListOffsetsOptions(level))
                .all()
                .get()
                .get(at)
                .offset();
    }

    /** bounds TOPIC PARTITION: first offset, end of what is decided, end of all. */
    private void bounds(TopicPartition at) throws Exception {
        out.println(
                offset(at, OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED)
                        + " "
                        + offset(at, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
                        + " "
                        + offset(at, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED));
    }

    private KafkaProducer<byte[], byte[]> producer(Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(more);
        settings.put("bootstrap.servers", bootstrap);
        settings.put("acks", "all");
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    /** The records KEY VALUE TIMESTAMP KEY VALUE TIMESTAMP... from the word {@code from} on. */
    private static List<ProducerRecord<byte[], byte[]>> input(
            TopicPartition at, String[] words, int from) {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int word = from; word < words.length; word += 3) {
            long timestamp = Long.parseLong(words[word + 2]);
            byte[] key = Text.decode(words[word]);
            byte[] value = Text.decode(words[word + 1]);
            records.add(
                    new ProducerRecord<>(at.topic(), at.partition(), timestamp, key, value));
        }
        return records;
    }

    private static List<ProducerRecord<byte[], byte[]>> input(String[] words, int from) {
        return input(new TopicPartition(words[1] + "-in", 0), words, from);
    }

    /** send TOPIC PARTITION COMPRESSION RECORD...: as a Samza job writes its changelog. */
    private void send(TopicPartition at, String[] words) throws Exception {
        try (var producer = producer(Map.of("compression.type", words[3], "linger.ms", 20))) {
            var sent = input(at, words, 4).stream().map(producer::send).toList();
            for (var one : sent) {
                one.get();
            }
        }
    }

    /** transaction TOPIC PARTITION commit|abort RECORD... */
    private void transaction(TopicPartition at, String[] words) throws Exception {
        try (var producer = producer(Map.of("transactional.id", "peer-" + at))) {
            producer.initTransactions();
            producer.beginTransaction();
            for (var record : input(at, words, 4)) {
                producer.send(record);
            }
            producer.flush();
            if (words[3].equals("commit")) {
                producer.commitTransaction();
            } else {
                producer.abortTransaction();
            }
        }
    }

    /**
     * settle TOPIC PARTITION: returns when no transaction is open. A coordinator answers a commit
     * when it is decided; only then are its markers written, and readers see it.
     */
    private void settle(TopicPartition at) throws Exception {
        while (offset(at, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
                < offset(at, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)) {
            Thread.sleep(5);
        }
    }

    /** read TOPIC PARTITION committed|uncommitted: offset, timestamp, key, value, headers. */
    private void read(TopicPartition at, String isolation) throws Exception {
        IsolationLevel level =
                isolation.equals("committed")
                        ? IsolationLevel.READ_COMMITTED
                        : IsolationLevel.READ_UNCOMMITTED;
        long end = offset(at, OffsetSpec.latest(), level);
        Map<String, Object> settings =
                Map.of(
                        "bootstrap.servers", bootstrap,
                        "isolation.level", "read_" + isolation,
                        "auto.offset.reset", "none",
                        "max.poll.records", 10_000);
        try (var consumer =
                new KafkaConsumer<>(
                        settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(List.of(at));
            consumer.seekToBeginning(List.of(at));
            while (consumer.position(at) < end) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    out.println(line(record));
                }
            }
        }
    }

    private static String line(ConsumerRecord<byte[], byte[]> record) {
        StringBuilder line = new StringBuilder();
        line.append(record.offset()).append(' ').append(record.timestamp());
        line.append(' ').append(Text.encode(record.key()));
        line.append(' ').append(Text.encode(record.value()));
        for (Header header : Arrays.asList(record.headers().toArray())) {
            line.append(' ').append(Text.encode(header.key().getBytes(StandardCharsets.UTF_8)));
            line.append(' ').append(Text.encode(header.value()));
        }
        return line.toString();
    }
}
