//! The server's side: a window an operator opens for one newcomer.

use std::time::{Duration, Instant};

use mfpsync_storage::model::{DeviceId, PublicKey};
use thiserror::Error;

use super::exchange::{Code, Half, PROOF_BYTES, Proofs, Transcript};

/// How long a window is open.
pub const LIFETIME: Duration = Duration::from_secs(600);
/// How many exchanges may be started in one window.
pub const TRIES: u8 = 5;
/// How many exchanges may be under way at once.
pub const SESSIONS: usize = 4;
/// How long an exchange may take: a joiner gives up sooner, and what it left would keep others out.
pub const EXCHANGE: Duration = Duration::from_secs(15);
/// How long after its end a window still says why it has ended.
const AFTERGLOW: Duration = Duration::from_secs(120);

/// Why a pairing does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PairingError {
    /// No window is open, or its code was used.
    #[error("pairing is not open")]
    Closed,
    /// The code is older than ten minutes.
    #[error("pairing code has expired")]
    Expired,
    /// The tries are used up; a new window must be opened.
    #[error("too many tries with this pairing code")]
    TooManyTries,
    /// The joiner does not know the code.
    #[error("wrong pairing code")]
    WrongCode {
        /// Tries left in this window.
        tries_left: u8,
    },
    /// No such exchange on this connection.
    #[error("unknown pairing session")]
    UnknownSession,
    /// As many exchanges as are allowed are under way.
    #[error("too many devices are pairing at once")]
    Busy,
    /// Not what the exchange expects.
    #[error("malformed pairing message: {0}")]
    Malformed(&'static str),
}

impl PairingError {
    /// A stable word for the communication log.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Closed => "pairing-closed",
            Self::Expired => "pairing-expired",
            Self::TooManyTries => "pairing-tries",
            Self::WrongCode { .. } => "pairing-code",
            Self::UnknownSession | Self::Malformed(_) => "malformed",
            Self::Busy => "busy",
        }
    }
}

/// What a window shows the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not opened, closed, or used.
    Closed,
    /// Waiting for a newcomer.
    Open {
        /// Until it expires.
        remaining: Duration,
        /// Exchanges that may still be started.
        tries_left: u8,
    },
    /// The code is too old.
    Expired,
    /// The tries are used up.
    TooManyTries,
}

/// Names one exchange; random.
pub type SessionId = [u8; 16];

/// A joiner's first message, and the connection it came on.
#[derive(Debug, Clone)]
pub struct Hello<'a> {
    /// Its SPAKE2 message.
    pub spake: &'a [u8],
    /// Who it is.
    pub newcomer: Newcomer,
    /// The server's own id.
    pub server: DeviceId,
    /// The server's own key.
    pub server_key: PublicKey,
    /// Keying material of the connection.
    pub exporter: [u8; 32],
}

/// A device that wants to join, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Newcomer {
    /// Its id.
    pub device: DeviceId,
    /// Its key; proven in the handshake of the connection.
    pub public_key: PublicKey,
    /// Its name.
    pub name: String,
}

/// The server's answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Names the exchange from now on.
    pub session: SessionId,
    /// The server's SPAKE2 message.
    pub spake: Vec<u8>,
}

struct Session {
    id: SessionId,
    began_at: Instant,
    exporter: [u8; 32],
    newcomer: Newcomer,
    proofs: Proofs,
}

struct Open {
    code: Code,
    opened_at: Instant,
    tries_left: u8,
    sessions: Vec<Session>,
}

impl Open {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened_at)
    }

    fn is_under_way(session: &Session, now: Instant) -> bool {
        now.saturating_duration_since(session.began_at) < EXCHANGE
    }

    /// Whether somebody may still be let in by this code.
    fn is_used_up(&self, now: Instant) -> bool {
        self.tries_left == 0 && !self.sessions.iter().any(|session| Self::is_under_way(session, now))
    }
}

/// At most one code at a time, good for one newcomer, ten minutes and five tries.
#[derive(Default)]
pub struct PairingWindow {
    open: Option<Open>,
}

impl PairingWindow {
    /// A closed window.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens the window with a fresh code; a former one and its exchanges are void.
    pub fn open(&mut self, code: Code, now: Instant) {
        self.open = Some(Open { code, opened_at: now, tries_left: TRIES, sessions: Vec::new() });
    }

    /// Closes the window; exchanges under way are void.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// What to show the operator.
    #[must_use]
    pub fn state(&self, now: Instant) -> State {
        let Some(open) = &self.open else { return State::Closed };
        match LIFETIME.checked_sub(open.age(now)) {
            None | Some(Duration::ZERO) => State::Expired,
            Some(_) if open.is_used_up(now) => State::TooManyTries,
            Some(remaining) => State::Open { remaining, tries_left: open.tries_left },
        }
    }

    /// Whether pairing connections are to be let in: while a window is open, and a little longer so
    /// that latecomers learn why they are late.
    #[must_use]
    pub fn accepts_connections(&self, now: Instant) -> bool {
        self.open.as_ref().is_some_and(|open| open.age(now) < LIFETIME + AFTERGLOW)
    }

    /// Begins an exchange under the given random session id; costs a try.
    ///
    /// # Errors
    /// Any of [`PairingError`] but `WrongCode` and `UnknownSession`.
    pub fn start(
        &mut self,
        hello: Hello<'_>,
        session: SessionId,
        now: Instant,
    ) -> Result<Answer, PairingError> {
        let open = self.current(now)?;
        if open.tries_left == 0 {
            return Err(PairingError::TooManyTries);
        }
        if open.sessions.len() >= SESSIONS {
            return Err(PairingError::Busy);
        }
        open.tries_left -= 1;
        let half = Half::server(&open.code);
        let spake = half.message.clone();
        let proofs = half.finish(hello.spake, &transcript(&hello, &spake))?;
        let Hello { newcomer, exporter, .. } = hello;
        open.sessions.push(Session { id: session, began_at: now, exporter, newcomer, proofs });
        Ok(Answer { session, spake })
    }

    /// Ends an exchange: takes the joiner's proof and, if it holds, gives the server's. The window
    /// is closed by a proof that holds; the session is used up either way.
    ///
    /// # Errors
    /// Any of [`PairingError`] but `Busy`.
    pub fn confirm(
        &mut self,
        session: &[u8],
        proof: &[u8],
        exporter: &[u8; 32],
        now: Instant,
    ) -> Result<(Newcomer, [u8; PROOF_BYTES]), PairingError> {
        let open = self.current(now)?;
        let at = open
            .sessions
            .iter()
            .position(|known| known.id == session && known.exporter == *exporter)
            .ok_or(PairingError::UnknownSession)?;
        let session = open.sessions.swap_remove(at);
        if !session.proofs.joiner_proves(proof) {
            return Err(PairingError::WrongCode { tries_left: open.tries_left });
        }
        self.close();
        Ok((session.newcomer, session.proofs.server_proof()))
    }

    fn current(&mut self, now: Instant) -> Result<&mut Open, PairingError> {
        let open = self.open.as_mut().ok_or(PairingError::Closed)?;
        if open.age(now) >= LIFETIME {
            open.sessions.clear();
            return Err(PairingError::Expired);
        }
        open.sessions.retain(|session| Open::is_under_way(session, now));
        Ok(open)
    }
}

fn transcript<'a>(hello: &'a Hello<'_>, server_spake: &'a [u8]) -> Transcript<'a> {
    Transcript {
        joiner_spake: hello.spake,
        server_spake,
        joiner_key: hello.newcomer.public_key,
        server_key: hello.server_key,
        joiner: hello.newcomer.device,
        server: hello.server,
        joiner_name: &hello.newcomer.name,
        exporter: &hello.exporter,
    }
}
