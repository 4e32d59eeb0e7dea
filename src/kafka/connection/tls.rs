//! TLS over any stream.
//!
//! The cryptographic state machine does no I/O. It stands behind a lock that nobody holds while
//! they read or write the stream below, so that one thread sends while another one waits.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::super::options::TlsOptions;
use super::settings::Deadline;
use super::transport::{Address, Connector, Transport};
use crate::env::{Env, read_file};
use crate::error::{Error, Result};
use crate::sync::{Arc, Mutex};

/// No file of certificates is longer.
const PEM_LEN_MAX: u64 = 16 << 20;
/// What is encrypted and written at a time.
const CHUNK_LEN: usize = 256 << 10;
const CIPHERTEXT_LEN: usize = 64 << 10;

/// Encrypts the streams of another connector.
#[derive(Debug)]
pub(super) struct TlsConnector {
    env: Arc<dyn Env>,
    inner: Arc<dyn Connector>,
    config: Arc<ClientConfig>,
    server_name: Option<String>,
}

impl TlsConnector {
    /// Reads the certificates that `options` name.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for files without certificates or with ones that do not fit the key;
    /// `NotFound`, `Io`.
    pub(super) fn new(
        env: Arc<dyn Env>,
        inner: Arc<dyn Connector>,
        options: &TlsOptions,
    ) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&*env, &options.roots)? {
            roots
                .add(certificate)
                .map_err(|error| refused(&options.roots, error))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::unsupported("TLS").with_source(error))?
            .with_root_certificates(roots);
        let config = match &options.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let key_bytes = read_file(&*env, key, PEM_LEN_MAX)?;
                // The parser's error could show what it read.
                let parsed = PrivateKeyDer::from_pem_slice(&key_bytes).map_err(|_| {
                    Error::invalid(format!("{}: no private key in PEM", key.display()))
                })?;
                builder
                    .with_client_auth_cert(certificates(&*env, chain)?, parsed)
                    .map_err(|error| refused(chain, error))?
            }
        };
        if let Some(name) = &options.server_name {
            server_name(name).map_err(|error| {
                Error::invalid(format!("{name:?} is no server name")).with_source(error)
            })?;
        }
        Ok(Self {
            env,
            inner,
            config: Arc::new(config),
            server_name: options.server_name.clone(),
        })
    }
}

impl Connector for TlsConnector {
    fn connect(&self, address: &Address, timeout: Duration) -> io::Result<Arc<dyn Transport>> {
        let deadline = Deadline::after(&*self.env, timeout);
        let inner = self.inner.connect(address, timeout)?;
        let name = self.server_name.as_ref().unwrap_or(&address.host);
        let machine = ClientConnection::new(Arc::clone(&self.config), server_name(name)?)
            .map_err(io::Error::other)?;
        let tls = Tls {
            env: Arc::clone(&self.env),
            inner,
            machine: Mutex::new(machine),
            writing: Mutex::new(Vec::new()),
            ciphertext: Mutex::new(Ciphertext::default()),
        };
        match tls.shake_hands(deadline) {
            Ok(()) => Ok(Arc::new(tls)),
            Err(error) => {
                tls.shutdown();
                Err(error)
            }
        }
    }
}

/// Locks are taken in the order of the fields.
#[derive(Debug)]
struct Tls {
    env: Arc<dyn Env>,
    inner: Arc<dyn Transport>,
    /// Held by the writer from encryption to the end of the write, so that records go out in the
    /// order in which they were encrypted. Its buffer holds what is encrypted.
    writing: Mutex<Vec<u8>>,
    /// Held by the reader.
    ciphertext: Mutex<Ciphertext>,
    /// Held by either for as long as it computes, never over I/O.
    machine: Mutex<ClientConnection>,
}

/// What was read of the stream below and not yet decrypted.
#[derive(Debug, Default)]
struct Ciphertext {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Ciphertext {
    /// Reads more, with nothing left over from before.
    fn fill(&mut self, inner: &dyn Transport, timeout: Duration) -> io::Result<usize> {
        self.bytes.resize(CIPHERTEXT_LEN, 0);
        self.start = 0;
        self.end = 0;
        self.end = inner.read(&mut self.bytes, timeout)?;
        Ok(self.end)
    }
}

impl Tls {
    fn shake_hands(&self, deadline: Deadline) -> io::Result<()> {
        loop {
            self.flush(deadline)?;
            if !self.machine.lock().is_handshaking() {
                return Ok(());
            }
            let mut ciphertext = self.ciphertext.lock();
            if ciphertext.start == ciphertext.end {
                let filled = ciphertext.fill(&*self.inner, deadline.remaining(&*self.env));
                match filled {
                    Ok(0) => return Err(unanswered(&io::ErrorKind::UnexpectedEof.into())),
                    Ok(_) => {}
                    Err(error) => return Err(unanswered(&error)),
                }
            }
            let fed = self.feed(&mut ciphertext);
            drop(ciphertext);
            if fed.is_err() {
                // The alert tells the broker why.
                self.flush(deadline).ok();
            }
            fed?;
        }
    }

    /// Hands ciphertext to the machine, as much as it takes.
    fn feed(&self, ciphertext: &mut Ciphertext) -> io::Result<()> {
        let mut machine = self.machine.lock();
        let mut rest = &ciphertext.bytes[ciphertext.start..ciphertext.end];
        let taken = machine.read_tls(&mut rest)?;
        ciphertext.start += taken;
        machine.process_new_packets().map_err(failed)?;
        Ok(())
    }

    /// Writes what the machine has to say.
    fn flush(&self, deadline: Deadline) -> io::Result<()> {
        let mut buffer = self.writing.lock();
        buffer.clear();
        let mut machine = self.machine.lock();
        while machine.wants_write() {
            machine.write_tls(&mut *buffer)?;
        }
        drop(machine);
        self.inner
            .write_all(&buffer, deadline.remaining(&*self.env))
    }
}

impl Transport for Tls {
    fn write_all(&self, bytes: &[u8], timeout: Duration) -> io::Result<()> {
        let deadline = Deadline::after(&*self.env, timeout);
        let mut buffer = self.writing.lock();
        for mut chunk in bytes.chunks(CHUNK_LEN) {
            buffer.clear();
            let mut machine = self.machine.lock();
            // It takes as much as its own buffer has room for. What it has to say by itself, an
            // answer to a change of keys, goes out with it.
            while !chunk.is_empty() {
                let taken = machine.writer().write(chunk)?;
                chunk = &chunk[taken..];
                while machine.wants_write() {
                    machine.write_tls(&mut *buffer)?;
                }
            }
            drop(machine);
            self.inner
                .write_all(&buffer, deadline.remaining(&*self.env))?;
        }
        Ok(())
    }

    fn read(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<usize> {
        let deadline = Deadline::after(&*self.env, timeout);
        let mut ciphertext = self.ciphertext.lock();
        loop {
            match self.machine.lock().reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
            if ciphertext.start == ciphertext.end {
                ciphertext.fill(&*self.inner, deadline.remaining(&*self.env))?;
            }
            self.feed(&mut ciphertext)?;
        }
    }

    fn shutdown(&self) {
        self.inner.shutdown();
    }

    fn is_encrypted(&self) -> bool {
        true
    }
}

/// A server that does not know what TLS is breaks off, or waits for more.
fn unanswered(error: &io::Error) -> io::Error {
    let what =
        format!("no answer to the TLS handshake: does the server speak TLS there? ({error})");
    io::Error::new(error.kind(), what)
}

/// What went wrong, in words; `InvalidInput` for what another attempt does not mend.
fn failed(error: rustls::Error) -> io::Error {
    use rustls::{CertificateError as Bad, Error, InvalidMessage};

    let what = match &error {
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "its certificate is not signed by any that is trusted"
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "its certificate is one of another host"
        }
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "its certificate has expired"
        }
        Error::InvalidCertificate(_) => "its certificate is not good",
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "it does not speak TLS there",
        _ => return io::Error::new(io::ErrorKind::InvalidData, error),
    };
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what} ({error})"))
}

fn server_name(name: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

fn certificates(env: &dyn Env, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = read_file(env, path, PEM_LEN_MAX)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match parsed {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(Error::invalid(format!(
            "{}: no certificate in PEM",
            path.display()
        ))),
    }
}

fn refused(path: &Path, error: rustls::Error) -> Error {
    Error::invalid(format!("{}: not usable", path.display())).with_source(error)
}
