//! Encrypted connections: a TLS server in front of the broker in process, with certificates good
//! and bad.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};
use siltstone::changelog::{Changelog, Partition, RecordRef, Session};
use siltstone::kafka::{Kafka, KafkaOptions, SaslMechanism, TlsOptions};
use siltstone::{ErrorKind, Result};

use crate::broker::Broker;

const HERE: [&str; 2] = ["127.0.0.1", "localhost"];

/// An authority that signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in PEM.
    file: PathBuf,
}

impl Authority {
    fn new(dir: &Path, name: &str, common_name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let file = dir.join(format!("{name}.pem"));
        std::fs::write(&file, certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            file,
        }
    }

    /// What a server of these hosts shows; one that has expired if `years_past`.
    fn server(&self, hosts: &[&str], has_expired: bool) -> Arc<ServerConfig> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        if has_expired {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key);
        Arc::new(config.unwrap())
    }
}

/// Decrypts for a broker, until it is dropped.
struct Server {
    address: SocketAddr,
    has_ended: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Server {
    fn start(target: SocketAddr, config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let has_ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&has_ended);
        let listener = thread::spawn(move || {
            for client in listener.incoming() {
                if flag.load(Ordering::Acquire) {
                    return;
                }
                let machine = ServerConnection::new(Arc::clone(&config)).unwrap();
                serve(
                    client.unwrap(),
                    TcpStream::connect(target).unwrap(),
                    machine,
                );
            }
        });
        Self {
            address,
            has_ended,
            listener: Some(listener),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Release);
        // Wakes the listener, which looks whether it has ended.
        TcpStream::connect(self.address).ok();
        let listener = self.listener.take().map(JoinHandle::join);
        assert!(thread::panicking() || listener.is_none_or(|ended| ended.is_ok()));
    }
}

/// Passes on what both sides say, decrypted and encrypted, on two threads that end with either.
fn serve(client: TcpStream, broker: TcpStream, machine: ServerConnection) {
    let machine = Arc::new(Mutex::new(machine));
    let [client_out, client_end] = [(); 2].map(|()| client.try_clone().unwrap());
    let [broker_out, broker_end] = [(); 2].map(|()| broker.try_clone().unwrap());
    let encrypting = Arc::clone(&machine);
    // The end of a stream, by whomever, ends both.
    thread::spawn(move || {
        decrypt(&machine, client, broker_out).ok();
        broker_end.shutdown(Shutdown::Both).ok();
    });
    thread::spawn(move || {
        encrypt(&encrypting, broker, client_out).ok();
        client_end.shutdown(Shutdown::Both).ok();
    });
}

fn decrypt(
    machine: &Mutex<ServerConnection>,
    mut client: TcpStream,
    mut broker: TcpStream,
) -> std::io::Result<()> {
    let mut bytes = [0; 16 << 10];
    loop {
        let len = client.read(&mut bytes)?;
        let mut rest = &bytes[..len];
        if len == 0 {
            return Ok(());
        }
        while !rest.is_empty() {
            let mut plain = Vec::new();
            let mut machine = machine.lock().unwrap();
            machine.read_tls(&mut rest)?;
            let state = machine.process_new_packets();
            while machine.wants_write() {
                machine.write_tls(&mut client)?;
            }
            let state = state.map_err(std::io::Error::other)?;
            plain.resize(state.plaintext_bytes_to_read(), 0);
            machine.reader().read_exact(&mut plain)?;
            drop(machine);
            broker.write_all(&plain)?;
        }
    }
}

fn encrypt(
    machine: &Mutex<ServerConnection>,
    mut broker: TcpStream,
    mut client: TcpStream,
) -> std::io::Result<()> {
    let mut bytes = [0; 16 << 10];
    loop {
        let len = broker.read(&mut bytes)?;
        if len == 0 {
            return Ok(());
        }
        let mut machine = machine.lock().unwrap();
        machine.writer().write_all(&bytes[..len])?;
        while machine.wants_write() {
            machine.write_tls(&mut client)?;
        }
    }
}

fn options(address: SocketAddr) -> KafkaOptions {
    KafkaOptions::new(address.to_string()).operation_timeout(Duration::from_millis(500))
}

fn claim(options: KafkaOptions) -> Result<Box<dyn Session>> {
    Kafka::open(options)?.claim("task", &[Partition::new("encrypted", 0)])
}

#[track_caller]
fn fails(options: KafkaOptions, kind: ErrorKind, told: &str) {
    let options = options.sasl(SaslMechanism::Plain, "ann", "hunter2");
    let error = claim(options).unwrap_err();
    // With everything that is said to have led to it.
    let mut text = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(told), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn records_go_through_encrypted_connections() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "ca", "trusted");
    let broker = Broker::start(1);
    let server = Server::start(broker.address(0), authority.server(&HERE, false));
    broker.advertise(0, server.address);
    let tls = TlsOptions::new(&authority.file);
    let mut session =
        claim(KafkaOptions::new(server.address.to_string()).tls(tls.clone())).unwrap();
    let value = vec![7; 300_000];
    for key in 0..20_u8 {
        session
            .append(0, RecordRef::new(&[key], Some(&value)))
            .unwrap();
    }
    let commit = session.prepare().unwrap();
    session.wait(commit).unwrap();
    session.close().unwrap();
    // The name of the certificate may be another one than the host that was connected to.
    let named = Server::start(
        broker.address(0),
        authority.server(&["broker.example"], false),
    );
    broker.advertise(0, named.address);
    let options = KafkaOptions::new(named.address.to_string());
    let mut session = claim(options.tls(tls.server_name("broker.example"))).unwrap();
    let start = session.bounds(0).unwrap().start;
    let mut reader = session.reader(0, start).unwrap();
    let mut keys = Vec::new();
    loop {
        let fetched = reader.fetch(&mut |_, record| {
            assert_eq!(record.value, Some(&value[..]));
            keys.push(record.key[0]);
            Ok(())
        });
        if fetched.unwrap().at_end {
            break;
        }
    }
    assert!(keys.into_iter().eq(0..20));
    session.close().unwrap();
}

#[test]
fn a_certificate_that_proves_nothing_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "ca", "trusted");
    let other = Authority::new(dir.path(), "other", "another");
    let pretender = Authority::new(dir.path(), "pretender", "trusted");
    let broker = Broker::start(1);
    let cases = [
        (
            &other,
            &HERE[..],
            false,
            "not signed by any that is trusted",
        ),
        (
            &pretender,
            &HERE,
            false,
            "not signed by any that is trusted",
        ),
        (
            &authority,
            &["broker.example"],
            false,
            "one of another host",
        ),
        (&authority, &HERE, true, "has expired"),
    ];
    for (signer, hosts, has_expired, told) in cases {
        let server = Server::start(broker.address(0), signer.server(hosts, has_expired));
        broker.advertise(0, server.address);
        let options = options(server.address).tls(TlsOptions::new(&authority.file));
        fails(options, ErrorKind::InvalidArgument, told);
    }
}

#[test]
fn one_side_that_does_not_encrypt_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "ca", "trusted");
    let broker = Broker::start(1);
    let tls = TlsOptions::new(&authority.file);
    fails(
        options(broker.address(0)).tls(tls.clone()),
        ErrorKind::Changelog,
        "does the server speak TLS there?",
    );
    // A server that answers whatever it is asked.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
        // Until the client has seen enough.
        stream.read_to_end(&mut Vec::new()).ok();
    });
    fails(
        options(address).tls(tls),
        ErrorKind::InvalidArgument,
        "does not speak TLS there",
    );
    answering.join().unwrap();
    let server = Server::start(broker.address(0), authority.server(&HERE, false));
    fails(
        options(server.address).plain_without_tls(true),
        ErrorKind::Changelog,
        "does the server want TLS?",
    );
}

#[test]
fn files_without_certificates_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let missing = dir.path().join("missing.pem");
    fails(
        options(address).tls(TlsOptions::new(&missing)),
        ErrorKind::NotFound,
        "missing.pem",
    );
    std::fs::write(&missing, "no certificate").unwrap();
    fails(
        options(address).tls(TlsOptions::new(&missing)),
        ErrorKind::InvalidArgument,
        "no certificate in PEM",
    );
}
