//! A scripted broker in memory: canned answers, and all that no broker would answer.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::Duration;

use super::transport::{Address, Connector, Transport};
use crate::kafka::protocol::{ErrorCode, Reader, Writer};
use crate::sync::{Arc, Condvar, Mutex};

/// A request as the peer got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) api_key: i16,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: String,
    pub(crate) body: Vec<u8>,
}

/// What the peer does about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Answers with this body behind a header without tagged fields.
    Body(Vec<u8>),
    /// Sends these bytes, whatever they are.
    Bytes(Vec<u8>),
    /// Sends these bytes and ends the stream.
    End(Vec<u8>),
    /// Says nothing more; whoever waits is told at once that the time is over.
    Mute,
    /// Says nothing; whoever waits goes on waiting.
    Wait,
}

type Script = Box<dyn FnMut(&Asked) -> Reply + Send>;

/// Connects to the peer, whatever the address.
#[derive(Clone)]
pub(crate) struct Peer(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// The most that one read returns.
    chunk: usize,
    is_encrypted: bool,
}

struct State {
    script: Script,
    asked: Vec<Asked>,
    connects: usize,
    out: VecDeque<u8>,
    has_ended: bool,
    is_mute: bool,
    /// Threads that wait for bytes.
    waiting: usize,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").finish_non_exhaustive()
    }
}

impl Peer {
    /// A peer that answers by `script`, once versions are negotiated: it speaks those of
    /// [`VERSIONS`].
    pub(crate) fn new(script: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        let mut script = script;
        Self::raw(usize::MAX, false, move |asked| match asked.api_key {
            18 => Reply::Body(versions(asked.version, VERSIONS)),
            _ => script(asked),
        })
    }

    /// A peer that answers everything by `script`, `chunk` bytes at a time.
    pub(crate) fn raw(
        chunk: usize,
        is_encrypted: bool,
        script: impl FnMut(&Asked) -> Reply + Send + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                script: Box::new(script),
                asked: Vec::new(),
                connects: 0,
                out: VecDeque::new(),
                has_ended: false,
                is_mute: false,
                waiting: 0,
            }),
            changed: Condvar::new(),
            chunk,
            is_encrypted,
        }))
    }

    /// What it was asked, without the questions for versions.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let asked = self.0.state.lock().asked.clone();
        asked
            .into_iter()
            .filter(|asked| asked.api_key != 18)
            .collect()
    }

    /// Returns once a thread waits for bytes.
    pub(crate) fn await_reader(&self) {
        let mut state = self.0.state.lock();
        while state.waiting == 0 {
            self.0.changed.wait(&mut state);
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.state.lock().has_ended
    }
}

/// What a peer speaks unless its script says otherwise: Metadata 7, the logins, Produce and Fetch.
pub(crate) const VERSIONS: &[(i16, i16, i16)] =
    &[(0, 3, 7), (1, 4, 11), (3, 0, 7), (17, 0, 1), (36, 0, 1)];

/// The answer to a question for versions, in that version of the question.
pub(crate) fn versions(version: i16, spoken: &[(i16, i16, i16)]) -> Vec<u8> {
    if version > 0 {
        // As old brokers do; and the body cannot be read by anybody.
        return vec![0, 35, 9, 9, 9];
    }
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body, false);
    writer.i16(ErrorCode::NONE.0);
    writer.array(spoken, |writer, (api_key, min, max)| {
        writer.i16(*api_key);
        writer.i16(*min);
        writer.i16(*max);
    });
    body
}

/// A whole frame with a header without tagged fields.
pub(crate) fn frame(correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, false);
    writer.i32(i32::try_from(body.len() + 4).unwrap());
    writer.i32(correlation_id);
    bytes.extend_from_slice(body);
    bytes
}

/// Metadata of version 7 without brokers and topics.
pub(crate) fn metadata(throttle_time_ms: i32) -> Vec<u8> {
    let mut body = Vec::new();
    let mut writer = Writer::new(&mut body, false);
    writer.i32(throttle_time_ms);
    writer.array(&[], |_, (): &()| {});
    writer.nullable_string(Some("the-cluster"));
    writer.i32(-1);
    writer.array(&[], |_, (): &()| {});
    body
}

impl Connector for Peer {
    fn connect(&self, _address: &Address, _timeout: Duration) -> io::Result<Arc<dyn Transport>> {
        let mut state = self.0.state.lock();
        state.connects += 1;
        state.has_ended = false;
        state.is_mute = false;
        state.out.clear();
        Ok(Arc::new(self.clone()))
    }
}

impl Transport for Peer {
    fn write_all(&self, bytes: &[u8], _timeout: Duration) -> io::Result<()> {
        let mut state = self.0.state.lock();
        if state.has_ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let asked = parse(bytes);
        let reply = (state.script)(&asked);
        let id = asked.correlation_id;
        state.asked.push(asked);
        match reply {
            Reply::Body(body) => state.out.extend(frame(id, &body)),
            Reply::Bytes(bytes) => state.out.extend(bytes),
            Reply::End(bytes) => {
                state.out.extend(bytes);
                state.has_ended = true;
            }
            Reply::Mute => state.is_mute = true,
            Reply::Wait => {}
        }
        self.0.changed.notify_all();
        Ok(())
    }

    fn read(&self, buffer: &mut [u8], _timeout: Duration) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        loop {
            if !state.out.is_empty() {
                let len = buffer.len().min(state.out.len()).min(self.0.chunk);
                for (to, from) in buffer.iter_mut().zip(state.out.drain(..len)) {
                    *to = from;
                }
                return Ok(len);
            }
            if state.has_ended {
                return Ok(0);
            }
            if state.is_mute {
                return Err(io::ErrorKind::TimedOut.into());
            }
            state.waiting += 1;
            self.0.changed.notify_all();
            self.0.changed.wait(&mut state);
            state.waiting -= 1;
        }
    }

    fn shutdown(&self) {
        self.0.state.lock().has_ended = true;
        self.0.changed.notify_all();
    }

    fn is_encrypted(&self) -> bool {
        self.0.is_encrypted
    }
}

fn parse(bytes: &[u8]) -> Asked {
    let mut reader = Reader::new(bytes, false);
    let len = reader.i32("length").unwrap();
    assert_eq!(usize::try_from(len).unwrap() + 4, bytes.len());
    Asked {
        api_key: reader.i16("API key").unwrap(),
        version: reader.i16("version").unwrap(),
        correlation_id: reader.i32("correlation id").unwrap(),
        client_id: reader.str("client id").unwrap().to_owned(),
        body: reader.rest().to_vec(),
    }
}
