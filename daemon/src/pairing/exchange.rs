//! What both sides of a pairing compute: the code, the key exchange over it, and the proofs.

use std::fmt;

use mfpsync_storage::codec::Encoder;
use mfpsync_storage::model::{DeviceId, PublicKey};
use ring::rand::SecureRandom;
use ring::{hkdf, hmac};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use thiserror::Error;
use zeroize::Zeroizing;

use super::window::PairingError;

const DIGITS: usize = 8;
const CODES: u32 = 100_000_000;
/// Length of a SPAKE2 message: the side and a compressed point.
pub const SPAKE_BYTES: usize = 33;
/// Length of a proof: HMAC-SHA-256.
pub const PROOF_BYTES: usize = 32;

const LABEL: &[u8] = b"mfpsync pairing 1";
const JOINER: &[u8] = b"joiner";
const SERVER: &[u8] = b"server";

/// Why there is no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CodeError {
    /// Not eight digits.
    #[error("a pairing code has {DIGITS} digits")]
    Malformed,
    /// The operating system gave no random bytes.
    #[error("no random numbers from the operating system")]
    Random,
}

/// A pairing code of eight digits; shows itself only on request.
#[derive(Clone)]
pub struct Code(Zeroizing<[u8; DIGITS]>);

impl Code {
    /// Draws a code; each of the hundred million is equally likely.
    ///
    /// # Errors
    /// [`CodeError::Random`].
    pub fn generate(random: &dyn SecureRandom) -> Result<Self, CodeError> {
        // The last, incomplete run of codes below 2^32 would favour small ones.
        const FAIR: u32 = u32::MAX / CODES * CODES;
        loop {
            let mut drawn = Zeroizing::new([0; 4]);
            random.fill(drawn.as_mut_slice()).map_err(|_| CodeError::Random)?;
            let number = u32::from_be_bytes(*drawn);
            if number < FAIR {
                return Ok(Self::from_number(number % CODES));
            }
        }
    }

    /// Reads what a person typed; spaces and hyphens between the digits are fine.
    ///
    /// # Errors
    /// [`CodeError::Malformed`].
    pub fn parse(typed: &str) -> Result<Self, CodeError> {
        let mut digits = Zeroizing::new([0; DIGITS]);
        let mut count = 0;
        for c in typed.chars().filter(|c| !matches!(c, ' ' | '-' | '\u{3000}')) {
            let digit = digits.get_mut(count).ok_or(CodeError::Malformed)?;
            *digit = u8::try_from(c).ok().filter(u8::is_ascii_digit).ok_or(CodeError::Malformed)?;
            count += 1;
        }
        if count == DIGITS { Ok(Self(digits)) } else { Err(CodeError::Malformed) }
    }

    fn from_number(mut number: u32) -> Self {
        let mut digits = Zeroizing::new([0; DIGITS]);
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        Self(digits)
    }

    /// The digits, for the operator's eyes.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.iter().map(|&digit| char::from(digit)).collect())
    }

    fn password(&self) -> Password {
        Password::new(self.0.as_slice())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What both sides must have seen alike.
pub(super) struct Transcript<'a> {
    pub joiner_spake: &'a [u8],
    pub server_spake: &'a [u8],
    pub joiner_key: PublicKey,
    pub server_key: PublicKey,
    pub joiner: DeviceId,
    pub server: DeviceId,
    pub joiner_name: &'a str,
    pub exporter: &'a [u8; 32],
}

impl Transcript<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut to = Encoder::new();
        to.bytes(LABEL).bytes(self.joiner_spake).bytes(self.server_spake);
        to.fixed(&self.joiner_key.0).fixed(&self.server_key.0);
        to.fixed(&self.joiner.0).fixed(&self.server.0);
        to.text(self.joiner_name).fixed(self.exporter);
        to.finish()
    }
}

/// Both proofs of one exchange; each side sends one and expects the other.
pub(super) struct Proofs {
    transcript: Vec<u8>,
    joiner: hmac::Key,
    server: hmac::Key,
}

impl Proofs {
    fn derive(shared: &[u8], transcript: &Transcript<'_>) -> Result<Self, PairingError> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, LABEL).extract(shared);
        let key = |side: &[u8]| match secret.expand(&[side], hmac::HMAC_SHA256) {
            Ok(material) => Ok(hmac::Key::from(material)),
            Err(_) => Err(PairingError::Malformed("key derivation")),
        };
        Ok(Self { transcript: transcript.bytes(), joiner: key(JOINER)?, server: key(SERVER)? })
    }

    pub(super) fn joiner_proof(&self) -> [u8; PROOF_BYTES] {
        proof(&self.joiner, &self.transcript)
    }

    pub(super) fn server_proof(&self) -> [u8; PROOF_BYTES] {
        proof(&self.server, &self.transcript)
    }

    /// Compares in constant time.
    pub(super) fn joiner_proves(&self, proof: &[u8]) -> bool {
        hmac::verify(&self.joiner, &self.transcript, proof).is_ok()
    }

    /// Compares in constant time.
    pub(super) fn server_proves(&self, proof: &[u8]) -> bool {
        hmac::verify(&self.server, &self.transcript, proof).is_ok()
    }
}

fn proof(key: &hmac::Key, transcript: &[u8]) -> [u8; PROOF_BYTES] {
    let mut bytes = [0; PROOF_BYTES];
    bytes.copy_from_slice(hmac::sign(key, transcript).as_ref());
    bytes
}

/// One side's half of the key exchange. Its scalar comes from the operating system.
pub(super) struct Half {
    spake: Spake2<Ed25519Group>,
    pub(super) message: Vec<u8>,
}

impl Half {
    pub(super) fn joiner(code: &Code) -> Self {
        let (spake, message) =
            Spake2::start_a(&code.password(), &Identity::new(JOINER), &Identity::new(SERVER));
        Self { spake, message }
    }

    pub(super) fn server(code: &Code) -> Self {
        let (spake, message) =
            Spake2::start_b(&code.password(), &Identity::new(JOINER), &Identity::new(SERVER));
        Self { spake, message }
    }

    pub(super) fn finish(self, other: &[u8], transcript: &Transcript<'_>) -> Result<Proofs, PairingError> {
        let shared = self.spake.finish(other).map_err(|_| PairingError::Malformed("key exchange"))?;
        Proofs::derive(&Zeroizing::new(shared), transcript)
    }
}

/// The joiner after its first message.
pub struct Joiner {
    half: Half,
    device: DeviceId,
    key: PublicKey,
    name: String,
}

impl Joiner {
    /// Begins with the code a person typed.
    #[must_use]
    pub fn start(code: &Code, device: DeviceId, key: PublicKey, name: &str) -> Self {
        Self { half: Half::joiner(code), device, key, name: name.to_owned() }
    }

    /// What to send first, [`SPAKE_BYTES`] long.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.half.message
    }

    /// Takes the server's answer, on the connection whose keying material is `exporter`.
    ///
    /// # Errors
    /// [`PairingError::Malformed`].
    pub fn answer(
        self,
        server_spake: &[u8],
        server: DeviceId,
        server_key: PublicKey,
        exporter: &[u8; 32],
    ) -> Result<JoinerProof, PairingError> {
        let joiner_spake = self.half.message.clone();
        let transcript = Transcript {
            joiner_spake: &joiner_spake,
            server_spake,
            joiner_key: self.key,
            server_key,
            joiner: self.device,
            server,
            joiner_name: &self.name,
            exporter,
        };
        Ok(JoinerProof(self.half.finish(server_spake, &transcript)?))
    }
}

/// The joiner after the exchange: its proof, and the check of the server's.
pub struct JoinerProof(Proofs);

impl JoinerProof {
    /// What to send to the server.
    #[must_use]
    pub fn proof(&self) -> [u8; PROOF_BYTES] {
        self.0.joiner_proof()
    }

    /// Whether the server proved to know the code on this very connection.
    #[must_use]
    pub fn accepts(&self, server_proof: &[u8]) -> bool {
        self.0.server_proves(server_proof)
    }
}
