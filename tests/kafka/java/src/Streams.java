import com.sun.management.OperatingSystemMXBean;
import java.io.PrintStream;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.CloseOptions.GroupMembershipOperation;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.TimestampedKeyValueStore;
import org.apache.kafka.streams.state.ValueAndTimestamp;

/**
 * A Kafka Streams application with one persistent store, named "store", whose changelog is
 * APPLICATION-store-changelog. What it reads from APPLICATION-in it puts there, and a record
 * without value deletes. The store is "plain" or "timestamped".
 */
final class Streams {
    private static final long SECONDS_MAX = 300;

    private final String bootstrap;
    private final String folder;
    private final Map<String, Object> client;
    private int runs;

    Streams(String bootstrap, String folder) {
        this.bootstrap = bootstrap;
        this.folder = folder;
        this.client = Map.of("bootstrap.servers", bootstrap, "acks", "all");
    }

    /** Feeds the application and returns when its changelog has everything. */
    void write(
            String application,
            String kind,
            List<ProducerRecord<byte[], byte[]>> input,
            PrintStream out)
            throws Exception {
        createInput(application);
        var bytes = new ByteArraySerializer();
        try (var producer = new KafkaProducer<>(client, bytes, bytes)) {
            input.forEach(producer::send);
        }
        CountDownLatch left = new CountDownLatch(input.size());
        try (var running = new Running(application, kind, left)) {
            await(left, "the input to be processed");
        }
        out.println("wrote " + input.size());
    }

    /** Restores the store from its changelog alone and prints timestamp, key and value of all. */
    void restore(String application, String kind, PrintStream out) throws Exception {
        createInput(application);
        try (var running = new Running(application, kind, new CountDownLatch(1))) {
            await(running.isRunning, "the restore");
            var name = "store";
            if (kind.equals("plain")) {
                var type = QueryableStoreTypes.<Bytes, byte[]>keyValueStore();
                var store = running.streams.store(StoreQueryParameters.fromNameAndType(name, type));
                try (var entries = store.all()) {
                    entries.forEachRemaining(
                            entry -> out.println(line("-", entry.key, entry.value)));
                }
            } else {
                var type = QueryableStoreTypes.<Bytes, byte[]>timestampedKeyValueStore();
                var store = running.streams.store(StoreQueryParameters.fromNameAndType(name, type));
                try (var entries = store.all()) {
                    entries.forEachRemaining(
                            entry ->
                                    out.println(
                                            line(
                                                    "" + entry.value.timestamp(),
                                                    entry.key,
                                                    entry.value.value())));
                }
            }
        }
    }

    /** Restores a plain store and prints records, nanoseconds, and nanoseconds of CPU. */
    void time(String application, PrintStream out) throws Exception {
        createInput(application);
        var system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        long cpu = system.getProcessCpuTime();
        try (var running = new Running(application, "plain", new CountDownLatch(1))) {
            await(running.isRunning, "the restore");
            cpu = system.getProcessCpuTime() - cpu;
            out.println(running.restored + " " + running.nanoseconds + " " + cpu);
        }
    }

    private static String line(String timestamp, Bytes key, byte[] value) {
        return timestamp + " " + Text.encode(key.get()) + " " + Text.encode(value);
    }

    private static void await(CountDownLatch latch, String what) throws Exception {
        if (!latch.await(SECONDS_MAX, TimeUnit.SECONDS)) {
            throw new TimeoutException("waited too long for " + what);
        }
    }

    private void createInput(String application) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap))) {
            var topic = new NewTopic(application + "-in", Optional.of(1), Optional.empty());
            admin.createTopics(List.of(topic)).all().get();
        } catch (ExecutionException error) {
            if (!(error.getCause() instanceof TopicExistsException)) {
                throw error;
            }
        }
    }

    /** The application, until it is closed, on a state folder of its own. */
    private final class Running implements AutoCloseable, StateRestoreListener {
        final CountDownLatch isRunning = new CountDownLatch(1);
        final KafkaStreams streams;
        private final Path state;
        private long began;
        volatile long nanoseconds;
        volatile long restored;

        Running(String application, String kind, CountDownLatch left) throws Exception {
            runs++;
            // Other peers keep theirs in the same folder.
            long process = ProcessHandle.current().pid();
            state = Path.of(folder, "streams-" + process + "-" + runs);
            Properties settings = new Properties();
            settings.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
            settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
            settings.put(StreamsConfig.STATE_DIR_CONFIG, state.toString());
            settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
            settings.put(
                    StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
            settings.put("auto.offset.reset", "earliest");
            streams = new KafkaStreams(topology(application, kind, left), settings);
            streams.setGlobalStateRestoreListener(this);
            streams.setStateListener(
                    (now, before) -> {
                        if (now == KafkaStreams.State.RUNNING) {
                            isRunning.countDown();
                        }
                    });
            streams.start();
        }

        @Override
        public void onRestoreStart(TopicPartition at, String store, long from, long end) {
            began = System.nanoTime();
        }

        @Override
        public void onBatchRestored(TopicPartition at, String store, long end, long count) {
            // The end tells the sum.
        }

        @Override
        public void onRestoreEnd(TopicPartition at, String store, long total) {
            nanoseconds = System.nanoTime() - began;
            restored = total;
        }

        @Override
        public void close() throws Exception {
            // Closing commits. The next run would else wait until this one is taken for dead.
            streams.close(CloseOptions.groupMembershipOperation(GroupMembershipOperation.LEAVE_GROUP));
            try (var files = Files.walk(state)) {
                for (Path path : files.sorted((a, b) -> b.compareTo(a)).toList()) {
                    Files.deleteIfExists(path);
                }
            }
        }
    }

    private static Topology topology(String application, String kind, CountDownLatch left) {
        Serde<Bytes> keys = Serdes.Bytes();
        Serde<byte[]> values = Serdes.ByteArray();
        StoreBuilder<?> store =
                kind.equals("plain")
                        ? Stores.keyValueStoreBuilder(
                                        Stores.persistentKeyValueStore("store"), keys, values)
                                .withCachingDisabled()
                                .withLoggingEnabled(new HashMap<>())
                        : Stores.timestampedKeyValueStoreBuilder(
                                        Stores.persistentTimestampedKeyValueStore("store"),
                                        keys,
                                        values)
                                .withCachingDisabled()
                                .withLoggingEnabled(new HashMap<>());
        Topology topology = new Topology();
        topology.addSource("in", keys.deserializer(), values.deserializer(), application + "-in");
        topology.addProcessor("put", () -> new Put(kind, left), "in");
        topology.addStateStore(store, "put");
        return topology;
    }

    private static final class Put implements Processor<Bytes, byte[], Void, Void> {
        private final String kind;
        private final CountDownLatch left;
        private ProcessorContext<Void, Void> context;

        Put(String kind, CountDownLatch left) {
            this.kind = kind;
            this.left = left;
        }

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            this.context = context;
        }

        @Override
        public void process(Record<Bytes, byte[]> record) {
            if (kind.equals("plain")) {
                KeyValueStore<Bytes, byte[]> store = context.getStateStore("store");
                store.put(record.key(), record.value());
            } else {
                TimestampedKeyValueStore<Bytes, byte[]> store = context.getStateStore("store");
                store.put(
                        record.key(), ValueAndTimestamp.make(record.value(), record.timestamp()));
            }
            left.countDown();
        }
    }
}
