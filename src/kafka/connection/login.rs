//! Logging in by SASL, again before a session ends.

use super::inbound::Inbound;
use super::{Deadline, Sender, Shared};
use crate::error::{Error, ErrorKind, Result};
use crate::kafka::options::{SaslMechanism, SaslOptions};
use crate::kafka::protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use crate::kafka::protocol::{ErrorCode, Request};
use crate::sync::Arc;

impl Sender {
    /// Logs in if the options ask for it.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the broker refuses, or the password would pass unencrypted (`Io`
    /// where it took the same login before: a new connection may tell more); `Unsupported`; else
    /// as a call.
    pub(super) fn log_in(&mut self, deadline: Deadline) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let Some(sasl) = &shared.settings.options().sasl else {
            return Ok(());
        };
        // Held from the first question on, so that nobody else reads the answers.
        let mut inbound = shared.inbound.lock();
        let lifetime_ms = Login {
            sender: self,
            inbound: &mut inbound,
            sasl,
            deadline,
        }
        .run();
        let lifetime_ms = lifetime_ms.map_err(|error| {
            let was_taken = error.kind() == ErrorKind::InvalidArgument && self.login_due.is_some();
            let error = if was_taken {
                error.into_kind(ErrorKind::Io)
            } else {
                error
            };
            shared.fail(shared.named(&error))
        })?;
        self.login_due = (lifetime_ms > 0)
            .then(|| std::time::Duration::from_millis(lifetime_ms) * 4 / 5)
            .map(|pause| shared.settings.deadline(pause));
        Ok(())
    }
}

struct Login<'l> {
    sender: &'l mut Sender,
    inbound: &'l mut Inbound,
    sasl: &'l SaslOptions,
    deadline: Deadline,
}

impl Login<'_> {
    /// Returns how long the session lasts, 0 for ever.
    fn run(mut self) -> Result<u64> {
        self.choose()?;
        match self.sasl.mechanism {
            SaslMechanism::Plain => self.plain(),
            SaslMechanism::ScramSha256 | SaslMechanism::ScramSha512 => self.scram(),
        }
    }

    fn choose(&mut self) -> Result<()> {
        let mechanism = self.sasl.mechanism;
        let options = self.sender.shared.settings.options();
        let may_pass = self.sender.shared.transport.is_encrypted() || options.plain_without_tls;
        if mechanism == SaslMechanism::Plain && !may_pass {
            return Err(Error::invalid(
                "the password would pass unencrypted: use TLS or SCRAM, or allow it by the option \
                 plain_without_tls",
            ));
        }
        let request = SaslHandshakeRequest {
            mechanism: mechanism.name(),
        };
        let mut buffer = Vec::new();
        let response = self.ask(&request, &mut buffer)?;
        if response.error_code.is_ok() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "login by {} is not offered ({}), but {}",
            mechanism.name(),
            response.error_code,
            response.mechanisms.join(", ")
        )))
    }

    fn plain(&mut self) -> Result<u64> {
        let (user, password) = (&self.sasl.user, self.sasl.password.reveal());
        let message = format!("\0{user}\0{password}");
        let (lifetime_ms, _) = self.authenticate(message.as_bytes())?;
        Ok(lifetime_ms)
    }

    #[cfg(feature = "kafka-scram")]
    fn scram(&mut self) -> Result<u64> {
        use super::scram::{First, Hash};
        let hash = match self.sasl.mechanism {
            SaslMechanism::ScramSha512 => Hash::Sha512,
            _ => Hash::Sha256,
        };
        let env = self.sender.shared.settings.env();
        let nonce = format!("{:016x}{:016x}", env.random_u64(), env.random_u64());
        let first = First::new(hash, &self.sasl.user, &nonce);
        let (_, challenge) = self.authenticate(first.message().as_bytes())?;
        let last = first.answer(&challenge, self.sasl.password.reveal())?;
        let (lifetime_ms, proof) = self.authenticate(last.message().as_bytes())?;
        last.verify(&proof)?;
        Ok(lifetime_ms)
    }

    #[cfg(not(feature = "kafka-scram"))]
    #[expect(clippy::unused_self, reason = "the same call as with the feature")]
    fn scram(&mut self) -> Result<u64> {
        Err(Error::unsupported(
            "login by SCRAM needs the feature kafka-scram",
        ))
    }

    fn authenticate(&mut self, message: &[u8]) -> Result<(u64, Vec<u8>)> {
        let request = SaslAuthenticateRequest {
            auth_bytes: message,
        };
        let mut buffer = Vec::new();
        let response = self.ask(&request, &mut buffer)?;
        if response.error_code == ErrorCode::SASL_AUTHENTICATION_FAILED {
            return Err(Error::invalid(format!(
                "login of user {} by {} is refused: {}",
                self.sasl.user,
                self.sasl.mechanism.name(),
                response.error_message.unwrap_or("no reason is given")
            )));
        }
        if !response.error_code.is_ok() {
            let what = format!("login: {}", response.error_code);
            return Err(Error::new(ErrorKind::Io, what));
        }
        let lifetime_ms = u64::try_from(response.session_lifetime_ms).unwrap_or(0);
        Ok((lifetime_ms, response.auth_bytes.to_vec()))
    }

    fn ask<'a, R: Request>(
        &mut self,
        request: &R,
        buffer: &'a mut Vec<u8>,
    ) -> Result<R::Response<'a>> {
        let version = self.sender.version::<R>()?;
        let sent = self.sender.transmit(request, version, self.deadline)?;
        let shared: &Shared = &self.sender.shared;
        shared.answer(self.inbound, &sent, buffer)
    }
}
