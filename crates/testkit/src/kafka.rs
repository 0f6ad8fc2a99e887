//! A broker of Kafka for one test: the real one, if its libraries and Java are installed.

mod secured;

use std::ffi::OsString;
use std::fs::DirEntry;
use std::net::TcpListener;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders, ToBytes};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tempfile::TempDir;

use crate::drive::Result;
pub use secured::Secured;

/// The time limit of its start, and of each request, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A file's name and content.
type NamedFile = (OsString, Vec<u8>);

/// A running broker; dropping the value stops it.
#[derive(Debug)]
pub struct Kafka {
    process: Option<Child>,
    libraries: PathBuf,
    folder: TempDir,
    port: u16,
}

/// A transaction that is open.
pub struct OpenTransaction(BaseProducer);

impl OpenTransaction {
    /// Commits the transaction.
    pub fn commit(self) -> Result<()> {
        self.0.commit_transaction(PATIENCE).map_err(|error| error.to_string())
    }
}

/// A record that was received.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Received {
    /// Its partition.
    pub partition: i32,
    /// Its key, if it has one.
    pub key: Option<String>,
    /// Its value; none is a tombstone.
    pub value: Option<String>,
    /// Its headers, as name=value.
    pub headers: Vec<String>,
    /// Its timestamp in milliseconds since 1970.
    pub timestamp: Option<i64>,
}

/// A record to send.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Its partition.
    pub partition: i32,
    /// Its key, if it has one.
    pub key: Option<String>,
    /// Its value; none is a tombstone.
    pub value: Option<String>,
}

impl Sent {
    /// Returns records `{"id": …}` with the numbers `range`, in partition `number % partitions`.
    pub fn numbered(range: Range<i64>, partitions: i64) -> Vec<Sent> {
        let record = |id: i64| Sent {
            partition: (id % partitions) as i32,
            key: None,
            value: Some(format!("{{\"id\": {id}}}")),
        };
        range.map(record).collect()
    }
}

/// A record of bytes to send.
#[derive(Clone, Debug, Default)]
pub struct SentBytes {
    /// Its partition.
    pub partition: i32,
    /// Its key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Its value; none is a tombstone.
    pub value: Option<Vec<u8>>,
}

impl Kafka {
    /// Starts a broker. If it isn't installed, prints a note to standard error and returns `None`; if CI=true, fails.
    pub fn start() -> Result<Option<Kafka>> {
        let Some(mut kafka) = Kafka::prepare()? else { return Ok(None) };
        kafka.configure("", "", &[])?;
        kafka.begin()?;
        Ok(Some(kafka))
    }

    /// Chooses a folder and a port.
    fn prepare() -> Result<Option<Kafka>> {
        let Some(libraries) = std::env::var_os("KAFKA_LIBS").map(PathBuf::from) else {
            let missing = "the broker of Kafka isn't installed (KAFKA_LIBS names the folder of its jars)";
            if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
                return Err(missing.to_string());
            }
            eprintln!("skipped: {missing}");
            return Ok(None);
        };
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        Ok(Some(Kafka { process: None, libraries, folder, port: free_port()? }))
    }

    /// Returns the address for clients.
    pub fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Writes the broker's properties with more `listeners`, those of `more` last, and formats its folder with more
    /// arguments.
    fn configure(&self, listeners: &str, more: &str, arguments: &[&str]) -> Result<()> {
        let (port, controller) = (self.port, free_port()?);
        let properties = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{listeners}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=1\ngroup.initial.rebalance.delay.ms=0\n\
             auto.create.topics.enable=false\nlog.retention.check.interval.ms=500\n{more}",
            self.data().display()
        );
        let said = |error: std::io::Error| error.to_string();
        std::fs::write(self.properties(), properties).map_err(said)?;
        if !arguments.is_empty() {
            return self.format(arguments);
        }
        // A formatted folder names no port, so all brokers without arguments begin with the files of the first one.
        static FORMATTED: OnceLock<Result<Vec<NamedFile>>> = OnceLock::new();
        let files = FORMATTED.get_or_init(|| {
            self.format(&[])?;
            let read = |entry: DirEntry| Ok((entry.file_name(), std::fs::read(entry.path())?));
            let entries = std::fs::read_dir(self.data()).map_err(said)?;
            entries.map(|entry| entry.and_then(read)).collect::<std::io::Result<_>>().map_err(said)
        });
        std::fs::create_dir_all(self.data()).map_err(said)?;
        let files = files.as_ref().map_err(String::clone)?;
        files.iter().try_for_each(|(name, bytes)| std::fs::write(self.data().join(name), bytes)).map_err(said)
    }

    fn format(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.java();
        command.args(["kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c"]);
        command.arg(self.properties()).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("the broker's folder can't be formatted: {other:?}")),
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn properties(&self) -> PathBuf {
        self.folder.path().join("server.properties")
    }

    fn java(&self) -> Command {
        let mut command = Command::new("java");
        let jars: &Path = &self.libraries;
        // A broker of a test lives for seconds, most of which would go into compiling it well.
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"]);
        // Its classes, already loaded and checked. Java ignores the file if it doesn't suit.
        let classes = jars.join("broker.jsa");
        if classes.exists() {
            command.arg(format!("-XX:SharedArchiveFile={}", classes.display()));
        }
        command.arg("-cp").arg(jars.join("*")).stdin(Stdio::null());
        command
    }

    /// Starts the broker's process, and waits until it answers.
    pub fn begin(&mut self) -> Result<()> {
        let mut command = self.java();
        command.arg("kafka.Kafka").arg(self.properties()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().map_err(|error| format!("java: {error}"))?);
        let begun = Instant::now();
        let client: BaseProducer = self.config().create().map_err(|error| error.to_string())?;
        while let Err(error) = client.client().fetch_metadata(None, Duration::from_secs(1)) {
            if begun.elapsed() > PATIENCE {
                return Err(format!("the broker doesn't answer: {error}"));
            }
        }
        Ok(())
    }

    /// Kills the broker's process.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Cuts the newest batch off the log of a partition, as an unclean election of its leader does. The broker must not
    /// run.
    pub fn cut_log(&self, topic: &str, partition: i32) -> Result<()> {
        let folder = self.data().join(format!("{topic}-{partition}"));
        let log = folder.join("00000000000000000000.log");
        let file = std::fs::OpenOptions::new().write(true).open(&log);
        let cut = file.and_then(|file| file.set_len(file.metadata()?.len().saturating_sub(1)));
        cut.map_err(|error| format!("{}: {error}", log.display()))
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.servers()).set("message.max.bytes", "30000000");
        config
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        self.config().create().map_err(|error| error.to_string())
    }

    /// Creates a topic.
    pub async fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let done = self.admin()?.create_topics([&topic], &AdminOptions::new()).await;
        done.map_err(|error| error.to_string())?
            .into_iter()
            .try_for_each(|one| one.map(drop).map_err(|(topic, code)| format!("topic {topic}: {code}")))
    }

    /// Deletes a topic.
    pub async fn delete_topic(&self, name: &str) -> Result<()> {
        let done = self.admin()?.delete_topics(&[name], &AdminOptions::new()).await;
        done.map(drop).map_err(|error| error.to_string())
    }

    /// Adds partitions to a topic, which then has this many.
    pub async fn grow_topic(&self, name: &str, partitions: usize) -> Result<()> {
        let grown = rdkafka::admin::NewPartitions::new(name, partitions);
        let done = self.admin()?.create_partitions([&grown], &AdminOptions::new()).await;
        done.map(drop).map_err(|error| error.to_string())
    }

    /// Deletes the records of a partition before an offset, as retention does.
    pub async fn delete_before(&self, topic: &str, partition: i32, offset: i64) -> Result<()> {
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(topic, partition, Offset::Offset(offset));
        added.map_err(|error| error.to_string())?;
        let done = self.admin()?.delete_records(&list, &AdminOptions::new()).await;
        done.map(drop).map_err(|error| error.to_string())
    }

    /// Creates a topic with a property.
    pub async fn create_topic_with(&self, name: &str, (property, value): (&str, &str)) -> Result<()> {
        let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1)).set(property, value);
        let done = self.admin()?.create_topics([&topic], &AdminOptions::new()).await;
        done.map(drop).map_err(|error| error.to_string())
    }

    /// Returns the records of all partitions that a reader of committed records sees, in the order of each partition.
    pub fn received(&self, topic: &str) -> Result<Vec<Received>> {
        let said = |error: rdkafka::error::KafkaError| error.to_string();
        let mut config = self.config();
        config
            .set("group.id", "test")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create().map_err(said)?;
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).map_err(said)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions as i32 {
            list.add_partition_offset(topic, partition, Offset::Beginning).map_err(said)?;
        }
        consumer.assign(&list).map_err(said)?;
        let (mut received, mut ended, begun) = (Vec::new(), 0, Instant::now());
        while ended < partitions {
            match consumer.poll(Duration::from_millis(200)) {
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ended += 1,
                Some(record) => received.push(Received::of(&record.map_err(said)?)),
                None if begun.elapsed() > PATIENCE => return Err(format!("topic {topic} doesn't end")),
                None => {}
            }
        }
        Ok(received)
    }

    /// Sends records, and waits until the broker has them.
    pub fn send(&self, topic: &str, records: &[Sent]) -> Result<()> {
        let producer: BaseProducer = self.config().create().map_err(|error| error.to_string())?;
        send(&producer, topic, records)?;
        producer.flush(PATIENCE).map_err(|error| error.to_string())
    }

    /// Sends a record with a timestamp in milliseconds since 1970, and waits until the broker has it.
    pub fn send_at(&self, topic: &str, value: &str, timestamp: i64) -> Result<()> {
        let producer: BaseProducer = self.config().create().map_err(|error| error.to_string())?;
        send_one(&producer, BaseRecord::to(topic).partition(0).key("").payload(value).timestamp(timestamp))?;
        producer.flush(PATIENCE).map_err(|error| error.to_string())
    }

    /// Returns a member of a consumer group that reads a topic, once it has its partitions.
    pub fn join(&self, group: &str, topic: &str) -> Result<BaseConsumer> {
        let said = |error: rdkafka::error::KafkaError| error.to_string();
        let consumer: BaseConsumer = self.config().set("group.id", group).create().map_err(said)?;
        consumer.subscribe(&[topic]).map_err(said)?;
        let begun = Instant::now();
        while consumer.assignment().map_err(said)?.count() == 0 {
            drop(consumer.poll(Duration::from_millis(100)));
            if begun.elapsed() > PATIENCE {
                return Err(format!("group {group} gives no partition"));
            }
        }
        Ok(consumer)
    }

    /// Sends records that may be no text, and waits until the broker has them.
    pub fn send_bytes(&self, topic: &str, records: &[SentBytes]) -> Result<()> {
        let producer: BaseProducer = self.config().create().map_err(|error| error.to_string())?;
        for SentBytes { partition, key, value } in records {
            let mut record = BaseRecord::to(topic).partition(*partition);
            (record.key, record.payload) = (key.as_deref(), value.as_deref());
            send_one(&producer, record)?;
        }
        producer.flush(PATIENCE).map_err(|error| error.to_string())
    }

    /// Sends records in a transaction, which is committed or aborted.
    pub fn send_together(&self, topic: &str, records: &[Sent], commits: bool) -> Result<()> {
        self.send_as("test", topic, records, commits)
    }

    /// Sends records in a transaction that stays open as long as the returned value.
    pub fn send_open(&self, id: &str, topic: &str, records: &[Sent]) -> Result<OpenTransaction> {
        let said = |error: rdkafka::error::KafkaError| error.to_string();
        let producer: BaseProducer = self.config().set("transactional.id", id).create().map_err(said)?;
        producer.init_transactions(PATIENCE).map_err(said)?;
        producer.begin_transaction().map_err(said)?;
        send(&producer, topic, records)?;
        producer.flush(PATIENCE).map_err(said)?;
        Ok(OpenTransaction(producer))
    }

    /// Sends records in a transaction under a transactional.id, which fences its earlier producers.
    pub fn send_as(&self, id: &str, topic: &str, records: &[Sent], commits: bool) -> Result<()> {
        let open = self.send_open(id, topic, records)?;
        match commits {
            true => open.commit(),
            false => open.0.abort_transaction(PATIENCE).map_err(|error| error.to_string()),
        }
    }
}

impl Received {
    fn of(record: &BorrowedMessage<'_>) -> Received {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let header =
            |header: Header<'_, &[u8]>| format!("{}={}", header.key, text(header.value.unwrap_or(b"NULL")));
        Received {
            partition: record.partition(),
            key: record.key().map(text),
            value: record.payload().map(text),
            headers: record.headers().map_or_else(Vec::new, |headers| headers.iter().map(header).collect()),
            timestamp: record.timestamp().to_millis(),
        }
    }
}

fn send(producer: &BaseProducer, topic: &str, records: &[Sent]) -> Result<()> {
    for Sent { partition, key, value } in records {
        let headers = OwnedHeaders::new().insert(Header { key: "part", value: Some(&partition.to_string()) });
        let mut record = BaseRecord::to(topic).partition(*partition).headers(headers);
        record.key = key.as_deref().map(str::as_bytes);
        record.payload = value.as_deref().map(str::as_bytes);
        send_one(producer, record)?;
    }
    Ok(())
}

fn send_one<K: ToBytes + ?Sized, P: ToBytes + ?Sized>(
    producer: &BaseProducer,
    record: BaseRecord<'_, K, P>,
) -> Result<()> {
    producer.send(record).map_err(|(error, _)| error.to_string())?;
    producer.poll(Duration::ZERO);
    Ok(())
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> Result<u16> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    Ok(free.map_err(|error| error.to_string())?.port())
}
