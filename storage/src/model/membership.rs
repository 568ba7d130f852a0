//! Who belongs to the group: signed rows, and the certificates of the keys that sign them.
//!
//! Here are only the formats; signing and verifying is done where the keys are (`mfpsync_daemon`).

use super::{DeviceId, GroupId, PublicKey, limit};
use crate::codec::{DecodeError, Decoder, Encoder};

/// Length of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;
const MAX_ENDPOINTS: usize = 16;

/// What a device may do, as a set of bits; unknown bits are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities(pub u32);

impl Capabilities {
    /// Follow and push.
    pub const CLIENT: Self = Self(1);
    /// Hold the master database and enrol devices.
    pub const SERVE: Self = Self(2);
    /// Hold the standby copy.
    pub const REPLICATE: Self = Self(4);
    /// Give operator commands to other devices.
    pub const ADMINISTER: Self = Self(8);

    const NAMES: [(Self, &'static str); 4] = [
        (Self::CLIENT, "client"),
        (Self::SERVE, "serve"),
        (Self::REPLICATE, "replicate"),
        (Self::ADMINISTER, "administer"),
    ];

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is contained.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of the known capabilities contained.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(one, _)| self.contains(*one)).map(|(_, name)| name)
    }
}

/// A device's row in the membership table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Of which group.
    pub group: GroupId,
    /// Which device.
    pub device: DeviceId,
    /// Its key; proven in every TLS handshake.
    pub public_key: PublicKey,
    /// The name people gave it.
    pub name: String,
    /// What it may do.
    pub capabilities: Capabilities,
    /// Released: refused from now on, until it is paired anew.
    pub released: bool,
    /// Rises with every new row of the device; the highest counts.
    pub version: u64,
    /// `host:port` under which it serves, best first.
    pub endpoints: Vec<String>,
    /// The device whose issuing key signed the row.
    pub issuer: DeviceId,
}

/// The root's statement that a device's issuing key may sign membership rows and promotions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuingCertificate {
    /// Of which group.
    pub group: GroupId,
    /// Whose issuing key.
    pub device: DeviceId,
    /// The issuing key.
    pub public_key: PublicKey,
}

/// A record and the signature over its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<T> {
    /// What was signed.
    pub record: T,
    /// The bytes that were signed.
    pub body: Vec<u8>,
    /// Ed25519 over `body`.
    pub signature: [u8; SIGNATURE_BYTES],
}

impl<T> Signed<T> {
    /// The record's bytes with the signature behind them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [self.body.as_slice(), &self.signature].concat()
    }

    /// Parses a record with the signature behind it; that is still to be verified.
    ///
    /// # Errors
    /// Too short, or as `parse`.
    pub fn split(
        bytes: &[u8],
        parse: impl FnOnce(&[u8]) -> Result<T, DecodeError>,
    ) -> Result<Self, DecodeError> {
        let (body, signature) = bytes.split_last_chunk().ok_or(DecodeError::Truncated)?;
        Ok(Self { record: parse(body)?, body: body.to_owned(), signature: *signature })
    }
}

impl Member {
    const MAGIC: [u8; 4] = *b"MFPM";
    const VERSION: u8 = 1;

    /// The bytes to sign.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut to = Encoder::record(Self::MAGIC, Self::VERSION);
        to.fixed(&self.group.0).fixed(&self.device.0).fixed(&self.public_key.0).text(&self.name);
        to.varint(self.capabilities.0.into()).fixed(&[u8::from(self.released)]).varint(self.version);
        to.varint(self.endpoints.len() as u64);
        for endpoint in &self.endpoints {
            to.text(endpoint);
        }
        to.fixed(&self.issuer.0);
        to.finish()
    }

    /// Whether this row counts where `old` is known. Two servers that did not know of each other may
    /// give out one version twice; then the release counts, and otherwise the bytes decide, so that all
    /// devices settle on the same row.
    #[must_use]
    pub fn supersedes(&self, old: &Self) -> bool {
        if old.released && !self.released && self.issuer == self.device {
            // Whoever was released cannot take itself back with an issuing key it still holds.
            return false;
        }
        (self.version, self.released, self.body()) > (old.version, old.released, old.body())
    }

    /// Parses a signed row; the signature is still to be verified.
    ///
    /// # Errors
    /// Not such a record, or a newer one.
    pub fn decode(bytes: &[u8]) -> Result<Signed<Self>, DecodeError> {
        Signed::split(bytes, Self::parse)
    }

    fn parse(body: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::record(body, Self::MAGIC, Self::VERSION, "member")?;
        let member = Self {
            group: GroupId(from.array()?),
            device: DeviceId(from.array()?),
            public_key: PublicKey(from.array()?),
            name: short_text(&mut from)?,
            capabilities: Capabilities(
                u32::try_from(from.varint()?).map_err(|_| DecodeError::Invalid("capabilities"))?,
            ),
            released: from.flag()?,
            version: from.varint()?,
            endpoints: decode_endpoints(&mut from)?,
            issuer: DeviceId(from.array()?),
        };
        from.finish()?;
        Ok(member)
    }
}

impl IssuingCertificate {
    const MAGIC: [u8; 4] = *b"MFPI";
    const VERSION: u8 = 1;

    /// The bytes to sign.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut to = Encoder::record(Self::MAGIC, Self::VERSION);
        to.fixed(&self.group.0).fixed(&self.device.0).fixed(&self.public_key.0);
        to.finish()
    }

    /// Parses a signed certificate; the signature is still to be verified.
    ///
    /// # Errors
    /// Not such a record, or a newer one.
    pub fn decode(bytes: &[u8]) -> Result<Signed<Self>, DecodeError> {
        Signed::split(bytes, |body| {
            let mut from = Decoder::record(body, Self::MAGIC, Self::VERSION, "issuing certificate")?;
            let certificate = Self {
                group: GroupId(from.array()?),
                device: DeviceId(from.array()?),
                public_key: PublicKey(from.array()?),
            };
            from.finish()?;
            Ok(certificate)
        })
    }
}

fn decode_endpoints(from: &mut Decoder<'_>) -> Result<Vec<String>, DecodeError> {
    let count = from.count()?;
    if count > MAX_ENDPOINTS {
        return Err(DecodeError::Invalid("more than 16 endpoints"));
    }
    (0..count).map(|_| short_text(from)).collect()
}

pub(super) fn short_text(from: &mut Decoder<'_>) -> Result<String, DecodeError> {
    let text = from.text()?;
    if text.len() > limit::NAME_BYTES || text.chars().any(char::is_control) {
        return Err(DecodeError::Invalid("text too long, or with control characters"));
    }
    Ok(text.to_owned())
}
