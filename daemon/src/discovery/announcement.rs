//! What a server says about itself on the local network, and how members recognise their own. Pure.
//!
//! Nothing in it is authenticated: whoever is on the network can say anything, and repeat what others
//! said. It names a place to look at; the device key proven in TLS decides.

use mfpsync_storage::model::GroupId;
use ring::hmac;

/// Characters of a name that are shown.
const NAME_CHARS: usize = 64;
/// Bytes of a name that are announced: a TXT string has 255, its key among them.
const NAME_BYTES: usize = 192;
/// The layout of the TXT record.
const VERSION: &str = "1";
/// Bytes of nonce and tag.
pub(super) const TAG_BYTES: usize = 8;

/// What a server says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The device's name.
    pub name: String,
    /// The group's name.
    pub group_name: String,
    /// Whether newcomers can pair now.
    pub pairing_open: bool,
    /// Drawn anew whenever the server starts.
    pub nonce: [u8; TAG_BYTES],
    /// Tells members, and nobody else, which group it is.
    pub tag: [u8; TAG_BYTES],
}

impl Announcement {
    /// The server of `group`.
    #[must_use]
    pub fn new(name: &str, group_name: &str, group: GroupId, nonce: [u8; TAG_BYTES]) -> Self {
        Self {
            name: shown(name),
            group_name: shown(group_name),
            pairing_open: false,
            nonce,
            tag: tag(group, nonce),
        }
    }

    /// Whether it claims to be of `group`.
    #[must_use]
    pub fn is_of(&self, group: GroupId) -> bool {
        self.tag == tag(group, self.nonce)
    }

    /// Key and value of each TXT string.
    #[must_use]
    pub fn to_txt(&self) -> Vec<(&'static str, String)> {
        vec![
            ("v", VERSION.to_owned()),
            ("name", cut(&self.name, NAME_BYTES).to_owned()),
            ("group", cut(&self.group_name, NAME_BYTES).to_owned()),
            ("pair", u8::from(self.pairing_open).to_string()),
            ("nonce", hex(self.nonce)),
            ("tag", hex(self.tag)),
        ]
    }

    /// Reads TXT strings from anybody; none when they are not of this product or incomplete.
    #[must_use]
    pub fn from_txt<'a>(value: impl Fn(&str) -> Option<&'a [u8]>) -> Option<Self> {
        let text = |key| value(key).map(|bytes| shown(&String::from_utf8_lossy(bytes)));
        let id = |key| value(key).and_then(unhex);
        if value("v") != Some(VERSION.as_bytes()) {
            return None;
        }
        Some(Self {
            name: text("name").filter(|name| !name.is_empty())?,
            group_name: text("group")?,
            pairing_open: value("pair") == Some(b"1"),
            nonce: id("nonce")?,
            tag: id("tag")?,
        })
    }
}

/// Members know the group's id, which never leaves the group and has 128 bits: from nonce and tag it
/// cannot be guessed, and two tags of one group have nothing in common for others.
fn tag(group: GroupId, nonce: [u8; TAG_BYTES]) -> [u8; TAG_BYTES] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &group.0);
    let mut context = hmac::Context::with_key(&key);
    context.update(b"mfpsync discovery 1");
    context.update(&nonce);
    let whole = context.sign();
    let mut tag = [0; TAG_BYTES];
    for (to, from) in tag.iter_mut().zip(whole.as_ref()) {
        *to = *from;
    }
    tag
}

/// A name from anywhere as it may be shown: one line, no characters that steer a terminal or turn the
/// line around, bounded.
fn shown(text: &str) -> String {
    let kept = text.chars().filter(|c| !c.is_control() && !is_format(*c)).take(NAME_CHARS);
    kept.collect::<String>().trim().to_owned()
}

/// Invisible characters: direction marks, joiners, and what else makes two names look alike.
fn is_format(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

pub(super) fn hex(bytes: [u8; TAG_BYTES]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &[u8]) -> Option<[u8; TAG_BYTES]> {
    let bytes = data_encoding::HEXLOWER.decode(text).ok()?;
    bytes.try_into().ok()
}
