//! A proxy between a client and a broker that knows where frames begin and end, and breaks them.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

/// What becomes of one request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing: both pass.
    Pass,
    /// The request does not reach the broker; the connection ends.
    LoseRequest,
    /// Half of the request reaches the broker; the connection ends.
    CutRequest,
    /// The request reaches the broker, its answer nobody; the connection ends.
    LoseAnswer,
    /// Half of the answer reaches the client; the connection ends.
    CutAnswer,
    /// Half of the answer reaches the client, the rest when the proxy is told to
    /// [`release`](Proxy::release) it.
    StallAnswer,
    /// The answer carries the id of the request before.
    WrongId,
    /// The answer claims this length.
    Length(i32),
    /// One bit in the middle of the answer is another.
    Corrupt,
}

/// A request as it passes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) api_key: i16,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
}

type Policy = Box<dyn FnMut(Seen) -> Fault + Send>;

/// Listens on a port of its own and connects each client to the broker, until it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    /// Told when something is released or ended.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Decides where no fault was injected.
    policy: Option<Policy>,
    injected: VecDeque<Fault>,
    /// Both ends of every connection that is open.
    streams: Vec<TcpStream>,
    pumps: Vec<JoinHandle<()>>,
    releases: u64,
    is_refusing: bool,
    has_ended: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Proxy {
    /// Passes everything on to `target`, unless told otherwise.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        let listener = thread::spawn(move || accept(&listener, &accepting));
        Self {
            address,
            shared,
            listener: Some(listener),
        }
    }

    /// Where clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does this to the next request that has no other fault before it.
    pub(crate) fn inject(&self, fault: Fault) {
        self.shared.state().injected.push_back(fault);
    }

    /// Asks `policy` about every request for which no fault was injected.
    pub(crate) fn set_policy(&self, policy: impl FnMut(Seen) -> Fault + Send + 'static) {
        self.shared.state().policy = Some(Box::new(policy));
    }

    /// Lets all stalled answers go on.
    pub(crate) fn release(&self) {
        self.shared.state().releases += 1;
        self.shared.changed.notify_all();
    }

    /// Ends all connections.
    pub(crate) fn cut(&self) {
        for stream in self.shared.state().streams.drain(..) {
            // It may have ended by itself.
            stream.shutdown(Shutdown::Both).ok();
        }
        self.shared.changed.notify_all();
    }

    /// Whether connections, those that are open included, are ended at once.
    pub(crate) fn refuse(&self, is_refusing: bool) {
        self.shared.state().is_refusing = is_refusing;
        if is_refusing {
            self.cut();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state().has_ended = true;
        self.cut();
        // Wakes the listener, which looks whether it has ended.
        TcpStream::connect(self.address).ok();
        let listener = self.listener.take().map(JoinHandle::join);
        let pumps = std::mem::take(&mut self.shared.state().pumps);
        let pumps: Vec<_> = pumps.into_iter().map(JoinHandle::join).collect();
        if !thread::panicking() {
            assert!(listener.into_iter().chain(pumps).all(|ended| ended.is_ok()));
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        let mut state = shared.state();
        if state.has_ended {
            return;
        }
        if state.is_refusing {
            continue;
        }
        let Ok(broker) = TcpStream::connect(shared.target) else {
            continue;
        };
        let clones = [&client, &client, &broker, &broker].map(|stream| stream.try_clone().unwrap());
        let [client_kept, client_out, broker_kept, broker_out] = clones;
        state.streams.extend([client_kept, broker_kept]);
        let (faults, answers) = channel();
        let (requests, responses) = (Arc::clone(shared), Arc::clone(shared));
        state.pumps.push(thread::spawn(move || {
            // The end of a stream, by whomever, ends the pump.
            pump_requests(&requests, client, &broker_out, &faults).ok();
            broker_out.shutdown(Shutdown::Write).ok();
        }));
        state.pumps.push(thread::spawn(move || {
            pump_answers(&responses, broker, &client_out, &answers).ok();
            client_out.shutdown(Shutdown::Both).ok();
        }));
    }
}

fn pump_requests(
    shared: &Shared,
    mut client: TcpStream,
    mut broker: &TcpStream,
    faults: &Sender<Fault>,
) -> io::Result<()> {
    loop {
        let frame = read_frame(&mut client)?;
        let fault = decide(shared, &frame);
        match fault {
            Fault::LoseRequest => return broker.shutdown(Shutdown::Both),
            Fault::CutRequest => {
                broker.write_all(&frame[..frame.len() / 2])?;
                return broker.shutdown(Shutdown::Both);
            }
            _ => {
                // The pump of the answers may have ended: then so does this one.
                faults.send(fault).map_err(io::Error::other)?;
                broker.write_all(&frame)?;
            }
        }
    }
}

fn decide(shared: &Shared, frame: &[u8]) -> Fault {
    let short = |at: usize| i16::from_be_bytes(*frame[at..].first_chunk().unwrap());
    let seen = Seen {
        api_key: short(4),
        version: short(6),
        correlation_id: i32::from_be_bytes(*frame[8..].first_chunk().unwrap()),
    };
    let mut state = shared.state();
    if let Some(fault) = state.injected.pop_front() {
        return fault;
    }
    let policy = state.policy.as_mut();
    policy.map_or(Fault::Pass, |policy| policy(seen))
}

fn pump_answers(
    shared: &Shared,
    mut broker: TcpStream,
    mut client: &TcpStream,
    faults: &Receiver<Fault>,
) -> io::Result<()> {
    loop {
        let mut frame = read_frame(&mut broker)?;
        let middle = frame.len() / 2;
        match faults.recv().map_err(io::Error::other)? {
            Fault::Pass | Fault::LoseRequest | Fault::CutRequest => {}
            Fault::LoseAnswer => return broker.shutdown(Shutdown::Both),
            Fault::CutAnswer => {
                client.write_all(&frame[..middle])?;
                return broker.shutdown(Shutdown::Both);
            }
            Fault::StallAnswer => {
                // Whoever sees the first half may release the second one at once.
                let before = shared.state().releases;
                client.write_all(&frame[..middle])?;
                await_release(shared, client, before)?;
                frame.drain(..middle);
            }
            Fault::WrongId => {
                let id = i32::from_be_bytes(*frame[4..].first_chunk().unwrap());
                frame[4..8].copy_from_slice(&id.wrapping_sub(1).to_be_bytes());
            }
            Fault::Length(len) => frame[..4].copy_from_slice(&len.to_be_bytes()),
            Fault::Corrupt => frame[middle.max(8)] ^= 1,
        }
        client.write_all(&frame)?;
    }
}

/// Waits for more releases ([`Proxy::release`]) than `before`, or for the end of all connections.
fn await_release(shared: &Shared, client: &TcpStream, before: u64) -> io::Result<()> {
    let mut state = shared.state();
    let id = client.peer_addr()?;
    let is_open = |state: &State| {
        let mut streams = state.streams.iter();
        streams.any(|stream| stream.peer_addr().is_ok_and(|address| address == id))
    };
    while state.releases == before && is_open(&state) {
        state = shared.changed.wait(state).unwrap();
    }
    Ok(())
}

/// A frame with its length in front.
fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame)?;
    let len = u32::from_be_bytes(*frame.first_chunk().unwrap());
    frame.resize(4 + usize::try_from(len).unwrap(), 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(frame)
}
