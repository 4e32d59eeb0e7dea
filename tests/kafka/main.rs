//! The changelog on Kafka against an in-process broker, with faults in between.
#![cfg(feature = "kafka")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]

mod broker;
mod commands;
mod heartbeat;
mod producing;
mod proxy;
mod tls;

use std::io::{Read, Write};
use std::net::TcpStream;

use broker::Broker;
use proxy::{Fault, Proxy};

/// `ApiVersions` of version 0, as a whole frame.
const QUESTION: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 255, 255];

/// Asks for versions; the frame that came back, as far as it came.
fn ask(proxy: &Proxy) -> Vec<u8> {
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    let mut answer = Vec::new();
    // A proxy that cuts or refuses may have ended the stream at any of these.
    stream.write_all(&QUESTION).ok();
    stream.shutdown(std::net::Shutdown::Write).ok();
    stream.read_to_end(&mut answer).ok();
    answer
}

#[test]
fn the_proxy_does_what_it_is_told() {
    let broker = Broker::start(1);
    let proxy = Proxy::start(broker.address(0));
    let whole = ask(&proxy);
    let len = u32::from_be_bytes(*whole.first_chunk().unwrap());
    assert_eq!(whole.len(), usize::try_from(len).unwrap() + 4);
    assert_eq!(whole[4..8], [0, 0, 0, 7]);

    let faulty = |fault: Fault| {
        proxy.inject(fault);
        ask(&proxy)
    };
    assert!(faulty(Fault::LoseRequest).is_empty());
    assert!(faulty(Fault::LoseAnswer).is_empty());
    assert_eq!(faulty(Fault::CutAnswer), whole[..whole.len() / 2]);
    assert_eq!(faulty(Fault::WrongId)[4..8], [0, 0, 0, 6]);
    assert_eq!(faulty(Fault::Length(-1))[..4], [255; 4]);
    let corrupt = faulty(Fault::Corrupt);
    assert_eq!(corrupt.len(), whole.len());
    let differing = corrupt.iter().zip(&whole).filter(|(one, two)| one != two);
    assert_eq!(differing.count(), 1);
    assert_eq!(ask(&proxy), whole);
}

#[test]
fn a_stalled_answer_goes_on_when_it_is_released() {
    let broker = Broker::start(1);
    let proxy = Proxy::start(broker.address(0));
    proxy.inject(Fault::StallAnswer);
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.write_all(&QUESTION).unwrap();
    let mut len = [0; 4];
    stream.read_exact(&mut len).unwrap();
    let len = usize::try_from(u32::from_be_bytes(len)).unwrap();
    let mut answer = vec![0; len];
    stream.read_exact(&mut answer[..len / 2 - 4]).unwrap();
    proxy.release();
    stream.read_exact(&mut answer[len / 2 - 4..]).unwrap();
    assert_eq!(answer[..4], [0, 0, 0, 7]);
    proxy.refuse(true);
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "it was cut off");
    assert!(ask(&proxy).is_empty(), "and nobody else gets through");
    proxy.refuse(false);
    assert!(!ask(&proxy).is_empty());
}
