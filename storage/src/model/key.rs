//! What identifies an item: whose it is, what it is, for which device, and its own id.

use std::fmt;

use thiserror::Error;

use super::limit;
use crate::codec::{DecodeError, Decoder, Encoder};

/// Why a text cannot be part of an item key. Carries no part of the text: it may be personal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Not `user/<id>`, `usergroup/<id>`, `shared` or `device/<id>`.
    #[error("scope is not user/<id>, usergroup/<id>, shared or device/<id>")]
    Scope,
    /// Empty where a text is needed.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// Longer than [`limit::NAME_BYTES`].
    #[error("{0} is longer than 255 bytes")]
    TooLong(&'static str),
    /// Holds a control character.
    #[error("{0} holds a control character")]
    Control(&'static str),
}

/// Whose data it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(String);

impl Scope {
    /// Parses `user/<id>`, `usergroup/<id>`, `shared` or `device/<id>`.
    ///
    /// # Errors
    /// Any other text, an id that is empty, too long or holds control characters.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text == "shared" {
            return Ok(Self(text.to_owned()));
        }
        let (owner, id) = text.split_once('/').ok_or(KeyError::Scope)?;
        if !matches!(owner, "user" | "usergroup" | "device") {
            return Err(KeyError::Scope);
        }
        checked("scope", id)?;
        checked("scope", text)?;
        Ok(Self(text.to_owned()))
    }

    /// The scope of one user.
    ///
    /// # Errors
    /// As [`Scope::parse`].
    pub fn user(id: &str) -> Result<Self, KeyError> {
        Self::parse(&format!("user/{id}"))
    }

    /// The data shared by everybody.
    #[must_use]
    pub fn shared() -> Self {
        Self("shared".to_owned())
    }

    /// Whether it is one user's.
    #[must_use]
    pub fn is_user(&self) -> bool {
        self.0.starts_with("user/")
    }

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Twelve hex digits that stand for this scope in logs and on the debug socket.
    #[must_use]
    pub fn pseudonym(&self) -> String {
        pseudonym(self.0.as_bytes())
    }
}

/// What an item is, for example `address.personal`. Any name is a kind; the known ones have
/// conflict rules of their own (`mfpsync_replication::merge`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(String);

impl Kind {
    /// Parses a kind's name.
    ///
    /// # Errors
    /// Empty, too long, or with control characters.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        checked("kind", text).map(Self)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What identifies an item within its group.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey {
    /// Whose.
    pub scope: Scope,
    /// What.
    pub kind: Kind,
    /// Empty for shared kinds; the device's id for device-specific ones.
    pub device: String,
    /// Which.
    pub id: String,
}

impl ItemKey {
    /// Parses the four parts; `device` may be empty.
    ///
    /// # Errors
    /// As the parts; the id is empty, too long or holds control characters.
    pub fn parse(scope: &str, kind: &str, device: &str, id: &str) -> Result<Self, KeyError> {
        Ok(Self {
            scope: Scope::parse(scope)?,
            kind: Kind::parse(kind)?,
            device: if device.is_empty() { String::new() } else { checked("device", device)? },
            id: checked("item id", id)?,
        })
    }

    pub(crate) fn encode(&self, to: &mut Encoder) {
        to.text(self.scope.as_str()).text(self.kind.as_str()).text(&self.device).text(&self.id);
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (scope, kind, device, id) = (from.text()?, from.text()?, from.text()?, from.text()?);
        Self::parse(scope, kind, device, id).map_err(|_| DecodeError::Invalid("item key"))
    }
}

/// Prints a pseudonym (the first bytes of the key's SHA-256), never the key: keys name people.
impl fmt::Debug for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pseudonym())
    }
}

impl ItemKey {
    /// Twelve hex digits that stand for this key in logs and on the debug socket.
    #[must_use]
    pub fn pseudonym(&self) -> String {
        let mut encoder = Encoder::new();
        self.encode(&mut encoder);
        pseudonym(encoder.as_bytes())
    }
}

fn pseudonym(bytes: &[u8]) -> String {
    super::change::sha256(bytes).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn checked(what: &'static str, text: &str) -> Result<String, KeyError> {
    if text.is_empty() {
        return Err(KeyError::Empty(what));
    }
    if text.len() > limit::NAME_BYTES {
        return Err(KeyError::TooLong(what));
    }
    if text.chars().any(char::is_control) {
        return Err(KeyError::Control(what));
    }
    Ok(text.to_owned())
}
