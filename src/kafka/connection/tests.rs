//! Connections against a scripted peer.

use std::time::Duration;

use super::peer::{Asked, Peer, Reply, VERSIONS, frame, metadata, versions};
use super::*;
use crate::env::Env;
use crate::env::sim::SimEnv;
use crate::kafka::options::{KafkaOptions, SaslMechanism};
use crate::kafka::protocol::messages::{MetadataRequest, SaslAuthenticateRequest};
use crate::kafka::protocol::{Reader, Writer};
use crate::sync::thread;

const QUESTION: MetadataRequest<'static> = MetadataRequest { topics: Some(&[]) };

fn options(peer: &Peer) -> KafkaOptions {
    KafkaOptions::new("peer:9092")
        .env(Arc::new(SimEnv::new(1)))
        .client_id("the-client")
        .connector(Arc::new(peer.clone()))
}

fn open_with(options: KafkaOptions) -> Result<Connection> {
    let settings = Settings::new(options)?;
    let address = settings.bootstrap()[0].clone();
    Connection::open(&settings, &address, Deadline::NEVER)
}

fn open(peer: &Peer) -> Connection {
    open_with(options(peer)).unwrap()
}

/// A peer that answers one question for metadata so, and the connection's error.
fn error_after(reply: Reply) -> Error {
    let peer = Peer::new(move |_| reply.clone());
    let mut connection = open(&peer);
    let error = connection.call(&QUESTION).unwrap_err();
    assert!(peer.has_ended(), "the stream is closed");
    let again = connection.call(&QUESTION).unwrap_err();
    assert_eq!(again.to_string(), error.to_string(), "it stays broken");
    assert_eq!(peer.asked().len(), 1, "and nothing more is sent");
    error
}

#[test]
fn versions_are_negotiated_down() {
    let peer = Peer::new(|_| Reply::Body(metadata(0)));
    let mut connection = open(&peer);
    assert_eq!(connection.version::<MetadataRequest<'_>>().unwrap(), 7);
    let answer = connection.call(&QUESTION).unwrap();
    assert_eq!(answer.cluster_id, Some("the-cluster"));
    let asked = peer.asked();
    assert_eq!(asked[0].version, 7);
    assert_eq!(asked[0].client_id, "the-client");
    // Two questions for versions came first.
    assert_eq!(asked[0].correlation_id, 2);
}

#[test]
fn without_a_common_version_the_request_is_named() {
    let peer = Peer::raw(usize::MAX, false, |asked| {
        Reply::Body(versions(asked.version, &[(3, 0, 1), (18, 0, 3)]))
    });
    let mut connection = open(&peer);
    let error = connection.call(&QUESTION).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(
        error.to_string(),
        "broker peer:9092: speaks versions 0 to 1 of Metadata, this build [7, 9, 12]"
    );
    let error = connection
        .version::<SaslAuthenticateRequest<'_>>()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "broker peer:9092: does not speak SaslAuthenticate"
    );
    // The connection is as good as before.
    assert!(!peer.has_ended());
}

#[test]
fn a_broker_that_cannot_tell_its_versions_is_given_up() {
    let peer = Peer::raw(usize::MAX, false, |_| Reply::Body(vec![0, 35]));
    let error = open_with(options(&peer)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    let peer = Peer::raw(usize::MAX, false, |_| {
        Reply::Body(vec![0, 29, 1, 0, 0, 0, 0, 0])
    });
    let error = open_with(options(&peer)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(
        error.to_string().contains("TOPIC_AUTHORIZATION_FAILED"),
        "{error}"
    );
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    for len in [-1, i32::MIN, i32::MAX, 0] {
        let error = error_after(Reply::Bytes(len.to_be_bytes().to_vec()));
        assert_eq!(error.kind(), ErrorKind::Corruption, "{len}: {error}");
    }
    let above = (256_i32 << 20) + 1;
    let error = error_after(Reply::Bytes(above.to_be_bytes().into()));
    assert!(error.to_string().contains("at most 268435456"), "{error}");
}

#[test]
fn a_long_answer_takes_no_memory_before_it_comes() {
    let mut bytes = (200_i32 << 20).to_be_bytes().to_vec();
    bytes.extend_from_slice(&frame(2, b"")[4..]);
    let peer = Peer::new(move |_| Reply::End(bytes.clone()));
    let mut connection = open(&peer);
    let sent = connection.send(&QUESTION).unwrap();
    let mut buffer = Vec::new();
    let error = connection.receive_into(&sent, &mut buffer).unwrap_err();
    assert_eq!(
        error.io_kind(),
        Some(io::ErrorKind::UnexpectedEof),
        "{error}"
    );
    assert!(buffer.capacity() < 1 << 20, "{}", buffer.capacity());
}

#[test]
fn a_stream_that_ends_anywhere_in_an_answer_is_an_error() {
    let whole = frame(2, &metadata(0));
    for len in 0..whole.len() {
        let error = error_after(Reply::End(whole[..len].to_vec()));
        assert_eq!(error.io_kind(), Some(io::ErrorKind::UnexpectedEof), "{len}");
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}

#[test]
fn an_answer_to_another_request_is_refused() {
    for id in [-1, 0, 1, 3, i32::MAX] {
        let error = error_after(Reply::Bytes(frame(id, &metadata(0))));
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert!(
            error.to_string().contains("where that to 2 comes next"),
            "{error}"
        );
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_refused() {
    let mut long = metadata(0);
    long.push(0);
    for body in [vec![], metadata(0)[..7].to_vec(), long] {
        let error = error_after(Reply::Body(body));
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert!(
            error.to_string().starts_with("broker peer:9092: Metadata"),
            "{error}"
        );
    }
}

#[test]
fn an_answer_that_does_not_come_ends_the_connection() {
    let error = error_after(Reply::Mute);
    assert_eq!(error.io_kind(), Some(io::ErrorKind::TimedOut));
}

#[test]
fn answers_come_whole_however_the_stream_is_cut() {
    for chunk in [1, 2, 3, 7, 64, 65_536, usize::MAX] {
        let body = metadata(0);
        let peer = Peer::raw(chunk, false, move |asked| match asked.api_key {
            18 => Reply::Body(versions(asked.version, VERSIONS)),
            _ => Reply::Body(body.clone()),
        });
        let mut connection = open(&peer);
        let mut buffer = Vec::new();
        let sent: Vec<_> = (0..4)
            .map(|_| connection.send(&QUESTION).unwrap())
            .collect();
        for sent in &sent {
            let answer = connection.receive_into(sent, &mut buffer).unwrap();
            assert_eq!(answer.controller_id, -1, "chunks of {chunk}");
        }
    }
}

#[test]
fn long_and_short_answers_take_turns_in_one_buffer() {
    let body = |len: usize| {
        let mut body = Vec::new();
        let mut writer = Writer::new(&mut body, false);
        writer.i16(0);
        writer.nullable_string(None);
        writer.bytes(&vec![u8::try_from(len % 251).unwrap(); len]);
        writer.i64(0);
        body
    };
    let lens = [70_000, 3, 200_000, 65_530, 0, 1_000_000];
    let mut next = lens.into_iter();
    let peer = Peer::new(move |_| Reply::Body(body(next.next().unwrap())));
    let mut connection = open(&peer);
    let mut buffer = Vec::new();
    let request = SaslAuthenticateRequest { auth_bytes: b"" };
    let sent: Vec<_> = lens
        .map(|_| connection.send(&request).unwrap())
        .into_iter()
        .collect();
    for (sent, len) in sent.iter().zip(lens) {
        let answer = connection.receive_into(sent, &mut buffer).unwrap();
        let expected = vec![u8::try_from(len % 251).unwrap(); len];
        assert!(answer.auth_bytes == expected, "{len} bytes");
    }
}

#[test]
fn a_throttled_connection_is_silent() {
    let peer = Peer::new(|_| Reply::Body(metadata(40_000)));
    let env = Arc::new(SimEnv::new(1));
    let settings = Settings::new(options(&peer).env(Arc::clone(&env) as _)).unwrap();
    let address = settings.bootstrap()[0].clone();
    let mut connection = Connection::open(&settings, &address, Deadline::NEVER).unwrap();
    connection.call(&QUESTION).unwrap();
    // Whoever has no time to wait is told so, and the connection lives on.
    connection.set_limit(settings.deadline(Duration::ZERO));
    let error = connection.call(&QUESTION).unwrap_err();
    assert_eq!(error.io_kind(), Some(io::ErrorKind::TimedOut));
    assert!(error.to_string().contains("throttled"), "{error}");
    assert_eq!(peer.asked().len(), 1);
    env.advance(Duration::from_secs(40));
    connection.set_limit(Deadline::NEVER);
    connection.call(&QUESTION).unwrap();
    assert_eq!(peer.asked().len(), 2);
    // A shutdown wakes who waits for the broker's leave.
    let shutdown = settings.shutdown().clone();
    let waiting = thread::spawn(move || connection.call(&QUESTION).unwrap_err());
    shutdown.begin();
    assert_eq!(waiting.join().unwrap().kind(), ErrorKind::Closed);
    assert_eq!(peer.asked().len(), 2);
}

#[test]
fn a_shutdown_wakes_who_waits_for_an_answer() {
    let peer = Peer::new(|_| Reply::Wait);
    let settings = Settings::new(options(&peer)).unwrap();
    let address = settings.bootstrap()[0].clone();
    let mut connection = Connection::open(&settings, &address, Deadline::NEVER).unwrap();
    let other = Connection::open(&settings.scoped(), &address, Deadline::NEVER);
    let waiting = thread::spawn(move || connection.call(&QUESTION).unwrap_err());
    peer.await_reader();
    settings.shutdown().begin();
    assert_eq!(waiting.join().unwrap().kind(), ErrorKind::Closed);
    let error = Connection::open(&settings, &address, Deadline::NEVER).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    drop(other);
}

#[test]
fn two_threads_share_a_connection() {
    let peer = Peer::new(|_| Reply::Body(metadata(0)));
    let (mut sender, mut receiver) = open(&peer).split();
    let queue = Arc::new((
        Mutex::new(std::collections::VecDeque::new()),
        Condvar::new(),
    ));
    let filled = Arc::clone(&queue);
    let sending = thread::spawn(move || {
        for _ in 0..100 {
            let sent = sender.send(&QUESTION).unwrap();
            filled.0.lock().push_back(sent);
            filled.1.notify_all();
        }
        // Dropped here, it would close the connection.
        sender
    });
    for _ in 0..100 {
        let mut waiting = queue.0.lock();
        while waiting.is_empty() {
            queue.1.wait(&mut waiting);
        }
        let sent = waiting.pop_front().unwrap();
        drop(waiting);
        assert_eq!(receiver.receive(&sent).unwrap().controller_id, -1);
    }
    drop(receiver);
    let error = sending.join().unwrap().send(&QUESTION).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[test]
#[should_panic(expected = "the answer to request 2 was taken")]
fn an_answer_cannot_be_taken_twice() {
    let peer = Peer::new(|_| Reply::Body(metadata(0)));
    let mut connection = open(&peer);
    let sent = connection.send(&QUESTION).unwrap();
    connection.receive_into(&sent, &mut Vec::new()).unwrap();
    connection.receive_into(&sent, &mut Vec::new()).ok();
}

#[test]
fn request_ids_begin_again_at_zero() {
    assert_eq!(inbound::id_after(0), 1);
    assert_eq!(inbound::id_after(i32::MAX), 0);
}

/// The bytes that a login sent.
fn login_bytes(asked: &Asked) -> Vec<u8> {
    assert_eq!((asked.api_key, asked.version), (36, 1));
    Reader::new(&asked.body, false)
        .bytes("message")
        .unwrap()
        .to_vec()
}

fn login_answer(code: i16, message: Option<&str>, bytes: &[u8], lifetime_ms: i64) -> Reply {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body, false);
    writer.i16(code);
    writer.nullable_string(message);
    writer.bytes(bytes);
    writer.i64(lifetime_ms);
    Reply::Body(body)
}

/// Accepts the mechanism's name.
const CHOSEN: [u8; 6] = [0; 6];

#[test]
fn a_plain_password_does_not_pass_in_the_open() {
    let script = |asked: &Asked| match asked.api_key {
        18 => Reply::Body(versions(asked.version, VERSIONS)),
        17 => Reply::Body(CHOSEN.into()),
        _ => login_answer(0, None, b"", 0),
    };
    let plain = |peer: &Peer| options(peer).sasl(SaslMechanism::Plain, "the-user", "hunter2");
    let peer = Peer::raw(usize::MAX, false, script);
    let error = open_with(plain(&peer)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("unencrypted"), "{error}");
    assert_eq!(peer.asked(), []);
    open_with(plain(&peer).plain_without_tls(true)).unwrap();
    assert_eq!(login_bytes(&peer.asked()[1]), b"\0the-user\0hunter2");
    let encrypted = Peer::raw(usize::MAX, true, script);
    open_with(plain(&encrypted)).unwrap();
    assert_eq!(encrypted.asked().len(), 2);
}

#[test]
fn a_refused_login_says_why_and_keeps_the_secret() {
    let login = |peer: &Peer| {
        let options = options(peer).sasl(SaslMechanism::Plain, "the-user", "hunter2");
        open_with(options.plain_without_tls(true)).unwrap_err()
    };
    let peer = Peer::new(|asked| match asked.api_key {
        17 => Reply::Body(CHOSEN.into()),
        _ => login_answer(58, Some("no such user"), b"", 0),
    });
    let error = login(&peer);
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(
        error.to_string(),
        "broker peer:9092: login of user the-user by PLAIN is refused: no such user"
    );
    assert!(!format!("{error:?}").contains("hunter2"));
    let peer = Peer::new(|asked| match asked.api_key {
        17 => Reply::Body(CHOSEN.into()),
        _ => login_answer(14, None, b"", 0),
    });
    assert_eq!(login(&peer).kind(), ErrorKind::Io);
    let peer = Peer::new(|_| {
        let mut body = vec![0, 33];
        Writer::new(&mut body, false).array(&["GSSAPI", "OTHER"], |writer, name| {
            writer.string(name);
        });
        Reply::Body(body)
    });
    let error = login(&peer);
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().ends_with("but GSSAPI, OTHER"), "{error}");
}

#[test]
fn a_session_is_renewed_before_it_ends_between_requests() {
    let peer = Peer::new(|asked| match asked.api_key {
        17 => Reply::Body(CHOSEN.into()),
        36 => login_answer(0, None, b"", 10_000),
        _ => Reply::Body(metadata(0)),
    });
    let env = Arc::new(SimEnv::new(1));
    let options = options(&peer)
        .env(Arc::clone(&env) as Arc<dyn Env>)
        .sasl(SaslMechanism::Plain, "user", "password")
        .plain_without_tls(true);
    let mut connection = open_with(options).unwrap();
    let keys = || {
        peer.asked()
            .iter()
            .map(|asked| asked.api_key)
            .collect::<Vec<_>>()
    };
    let first = connection.send(&QUESTION).unwrap();
    assert_eq!(keys(), [17, 36, 3]);
    env.advance(Duration::from_secs(8));
    // The answer to the first request is read by the login and kept for its receiver.
    let second = connection.send(&QUESTION).unwrap();
    assert_eq!(keys(), [17, 36, 3, 17, 36, 3]);
    assert_eq!(
        connection
            .receive_into(&first, &mut Vec::new())
            .unwrap()
            .controller_id,
        -1
    );
    assert_eq!(
        connection
            .receive_into(&second, &mut Vec::new())
            .unwrap()
            .controller_id,
        -1
    );
    env.advance(Duration::from_secs(7));
    connection.call(&QUESTION).unwrap();
    assert_eq!(keys().len(), 7, "four fifths of the session are not over");
}

#[cfg(feature = "kafka-scram")]
#[test]
fn a_broker_that_does_not_know_the_password_is_refused() {
    let messages: [&[u8]; 2] = [b"", b"v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="];
    for last in messages {
        let peer = Peer::new(move |asked| {
            if asked.api_key == 17 {
                Reply::Body(CHOSEN.into())
            } else {
                let message = String::from_utf8(login_bytes(asked)).unwrap();
                match message.strip_prefix("n,,n=user,r=") {
                    Some(nonce) => {
                        let challenge = format!("r={nonce}more,s=c2FsdA==,i=4096");
                        login_answer(0, None, challenge.as_bytes(), 0)
                    }
                    None => login_answer(0, None, last, 0),
                }
            }
        });
        let scram = options(&peer).sasl(SaslMechanism::ScramSha256, "user", "hunter2");
        let error = open_with(scram).unwrap_err();
        let shown = format!("{error:?}");
        assert!(
            shown.contains("signature is wrong") || last.is_empty(),
            "{shown}"
        );
        assert!(shown.contains("lacks v=") || !last.is_empty(), "{shown}");
        assert!(peer.has_ended());
        for asked in peer.asked() {
            let body = String::from_utf8_lossy(&asked.body).into_owned();
            assert!(!body.contains("hunter2"), "the password stays here");
        }
    }
}

#[test]
fn a_login_that_is_refused_later_on_is_trouble_of_that_broker() {
    let mut logins = 0;
    let peer = Peer::new(move |asked| match asked.api_key {
        17 => Reply::Body(CHOSEN.into()),
        36 if logins == 0 => {
            logins = 1;
            login_answer(0, None, b"", 10_000)
        }
        36 => login_answer(58, Some("no such user"), b"", 0),
        _ => Reply::Body(metadata(0)),
    });
    let env = Arc::new(SimEnv::new(1));
    let options = options(&peer)
        .env(Arc::clone(&env) as Arc<dyn Env>)
        .sasl(SaslMechanism::Plain, "user", "password")
        .plain_without_tls(true);
    let mut connection = open_with(options).unwrap();
    env.advance(Duration::from_secs(8));
    // Now and later; a new connection may be taken, or else tells more.
    for _ in 0..2 {
        let error = connection.send(&QUESTION).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains("no such user"), "{error}");
    }
}
