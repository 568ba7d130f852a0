//! What may pass between a helper and a server. Libraries do not keep all that they are told: libsmbclient goes on in
//! clear when a server cannot encrypt, and takes a guest's session for a user's; the native one offers dialects that are
//! too old. So every message is looked at before it is passed on.
//!
//! Pure: one [`Watch`] for each connection sees the head of every message in both directions.
//!
//! **Source**: \[MS-SMB2\] sections 2.2.1 (header), 2.2.4 and 2.2.6 (answers to negotiate and session setup) and
//! 2.2.41 (transform header).

use super::target::{Dialect, Encryption};
use crate::store::{Breach, Kind};

/// Bytes of each message that are looked at; all of it, if it is shorter.
pub const HEAD: usize = 72;

const CLEAR: &[u8] = b"\xfeSMB";
const ENCRYPTED: &[u8] = b"\xfdSMB";
const NEGOTIATE: u16 = 0;
const SESSION_SETUP: u16 = 1;
const LOGOFF: u16 = 2;
const TREE_CONNECT: u16 = 3;
const TREE_DISCONNECT: u16 = 4;
const ECHO: u16 = 13;
const SIGNED: u32 = 0x0000_0008;
const GUEST_OR_NOBODY: u16 = 0x0001 | 0x0002;

const SUCCESS: u32 = 0;
const MORE_PROCESSING_REQUIRED: u32 = 0xc000_0016;
const ACCESS_DENIED: u32 = 0xc000_0022;
const NOT_SUPPORTED: u32 = 0xc000_00bb;
const INSUFFICIENT_RESOURCES: u32 = 0xc000_009a;
const REQUEST_NOT_ACCEPTED: u32 = 0xc000_00d0;

/// One connection, as far as it was seen.
#[derive(Debug)]
pub struct Watch {
    minimum: Dialect,
    encryption: Encryption,
    dialect: Option<u16>,
    encrypted: bool,
    /// A log-in has succeeded: from then on what is said in clear is signed.
    set_up: bool,
}

/// The head of a message in clear.
struct Clear<'a>(&'a [u8]);

impl Clear<'_> {
    fn short(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    fn long(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(*self.0.get(at..)?.first_chunk()?))
    }
}

impl Watch {
    /// A connection on which nothing was said yet.
    #[must_use]
    pub fn new(minimum: Dialect, encryption: Encryption) -> Self {
        Self { minimum, encryption, dialect: None, encrypted: false, set_up: false }
    }

    /// The dialect that was agreed upon.
    #[must_use]
    pub fn dialect(&self) -> Option<u16> {
        self.dialect
    }

    /// Whether messages to the server are encrypted.
    #[must_use]
    pub fn encrypted(&self) -> bool {
        self.encrypted
    }

    /// Looks at a message to the server, before it leaves.
    ///
    /// # Errors
    /// It must not leave, and the connection end.
    pub fn to_server(&mut self, head: &[u8]) -> Result<(), Kind> {
        if head.starts_with(ENCRYPTED) {
            self.encrypted = true;
            return Ok(());
        }
        let (command, flags) = Some(Clear(head))
            .filter(|_| head.starts_with(CLEAR))
            .and_then(|clear| clear.short(12).zip(clear.long(16)))
            .ok_or(Kind::Policy(Breach::Dialect))?;
        // Those before a session, and the one outside of it by which the library asks whether a server lives.
        if matches!(command, NEGOTIATE | SESSION_SETUP | ECHO) {
            return Ok(());
        }
        // These carry no data; the library enters a share in clear.
        let bare = matches!(command, LOGOFF | TREE_CONNECT | TREE_DISCONNECT);
        if (self.encryption == Encryption::Required || self.encrypted) && !bare {
            return Err(Kind::Policy(Breach::Encryption));
        }
        if flags & SIGNED == 0 {
            return Err(Kind::Policy(Breach::Signing));
        }
        Ok(())
    }

    /// Looks at a message from the server, before it is heard.
    ///
    /// # Errors
    /// It must not be heard, and the connection end.
    pub fn to_client(&mut self, head: &[u8]) -> Result<(), Kind> {
        if head.starts_with(ENCRYPTED) {
            return Ok(());
        }
        let clear = Clear(head);
        let (status, command) = clear
            .long(8)
            .zip(clear.short(12))
            .filter(|_| head.starts_with(CLEAR))
            .ok_or(Kind::Unreachable)?;
        let begins = matches!(command, NEGOTIATE | SESSION_SETUP);
        // Only the first of several messages in one is looked at, and nothing else holds them to anything yet.
        if (begins || !self.set_up) && clear.long(20) != Some(0) {
            return Err(Kind::Unreachable);
        }
        match command {
            NEGOTIATE => self.negotiated(status, clear.short(68)),
            SESSION_SETUP => {
                set_up(status, clear.short(66))?;
                self.set_up |= status == SUCCESS;
                Ok(())
            }
            // Signatures are the library's matter, and it keeps to them.
            _ => Ok(()),
        }
    }

    fn negotiated(&mut self, status: u32, dialect: Option<u16>) -> Result<(), Kind> {
        match dialect {
            Some(dialect) if status == SUCCESS && dialect >= self.minimum.number() => {
                self.dialect = Some(dialect);
                Ok(())
            }
            _ => Err(Kind::Policy(Breach::Dialect)),
        }
    }
}

fn set_up(status: u32, flags: Option<u16>) -> Result<(), Kind> {
    match (status, flags) {
        (SUCCESS, Some(flags)) if flags & GUEST_OR_NOBODY == 0 => Ok(()),
        (SUCCESS, _) => Err(Kind::Guest),
        (MORE_PROCESSING_REQUIRED, _) => Ok(()),
        (ACCESS_DENIED, _) => Err(Kind::Policy(Breach::EncryptionOff)),
        (NOT_SUPPORTED, _) => Err(Kind::Policy(Breach::Dialect)),
        (INSUFFICIENT_RESOURCES | REQUEST_NOT_ACCEPTED, _) => Err(Kind::Busy),
        // Wrong password, no such user, disabled, expired, locked, not now, not from here: one thing to do.
        _ => Err(Kind::Auth),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATE: u16 = 5;

    fn message(command: u16, status: u32, flags: u32, tail: [u8; 8]) -> Vec<u8> {
        let mut head = CLEAR.to_vec();
        head.extend([64, 0, 0, 0]);
        head.extend(status.to_le_bytes());
        head.extend(command.to_le_bytes());
        head.extend([1, 0]);
        head.extend(flags.to_le_bytes());
        head.resize(64, 0);
        head.extend(tail);
        head
    }

    fn negotiated(watch: &mut Watch, dialect: u16) -> Result<(), Kind> {
        let [low, high] = dialect.to_le_bytes();
        watch.to_client(&message(NEGOTIATE, SUCCESS, 0, [65, 0, 3, 0, low, high, 0, 0]))
    }

    fn set_up(watch: &mut Watch, status: u32, flags: u8) -> Result<(), Kind> {
        watch.to_client(&message(SESSION_SETUP, status, 0, [9, 0, flags, 0, 0, 0, 0, 0]))
    }

    #[test]
    fn nothing_but_log_in_and_the_shares_name_leaves_in_clear_when_encryption_is_required() {
        let mut watch = Watch::new(Dialect::Smb300, Encryption::Required);
        for command in [NEGOTIATE, SESSION_SETUP, ECHO] {
            assert_eq!(watch.to_server(&message(command, 0, 0, [0; 8])), Ok(()));
        }
        for command in (CREATE..20).filter(|&command| command != ECHO) {
            let refused = watch.to_server(&message(command, 0, SIGNED, [0; 8]));
            assert_eq!(refused, Err(Kind::Policy(Breach::Encryption)));
        }
        assert_eq!(watch.to_server(b"\xfdSMB and what nobody can read"), Ok(()));
        assert!(watch.encrypted());
    }

    #[test]
    fn a_connection_does_not_fall_back_from_encrypted_to_clear() {
        let mut watch = Watch::new(Dialect::Smb300, Encryption::Preferred);
        assert_eq!(watch.to_server(&message(CREATE, 0, SIGNED, [0; 8])), Ok(()));
        assert_eq!(watch.to_server(b"\xfdSMB"), Ok(()));
        let refused = watch.to_server(&message(CREATE, 0, SIGNED, [0; 8]));
        assert_eq!(refused, Err(Kind::Policy(Breach::Encryption)));
    }

    #[test]
    fn what_is_not_signed_does_not_leave() {
        let mut watch = Watch::new(Dialect::Smb300, Encryption::Off);
        assert_eq!(watch.to_server(&message(CREATE, 0, SIGNED, [0; 8])), Ok(()));
        let refused = watch.to_server(&message(CREATE, 0, 0, [0; 8]));
        assert_eq!(refused, Err(Kind::Policy(Breach::Signing)));
    }

    #[test]
    fn a_server_below_the_minimum_is_refused_and_smb_1_never_spoken() {
        for (dialect, good) in
            [(0x0202, false), (0x0210, false), (0x02ff, false), (0x0300, false), (0x0302, true)]
        {
            let mut watch = Watch::new(Dialect::Smb302, Encryption::Off);
            assert_eq!(negotiated(&mut watch, dialect).is_ok(), good, "{dialect:x}");
            assert_eq!(watch.dialect(), good.then_some(dialect));
        }
        let mut watch = Watch::new(Dialect::Smb300, Encryption::Off);
        assert_eq!(watch.to_server(b"\xffSMBr"), Err(Kind::Policy(Breach::Dialect)));
    }

    #[test]
    fn neither_a_guest_nor_nobody_is_a_user() {
        let watch = &mut Watch::new(Dialect::Smb300, Encryption::Off);
        assert_eq!(set_up(watch, MORE_PROCESSING_REQUIRED, 0), Ok(()));
        for flags in [1, 2, 5] {
            assert_eq!(set_up(watch, SUCCESS, flags), Err(Kind::Guest));
        }
        for flags in [0, 4] {
            assert_eq!(set_up(watch, SUCCESS, flags), Ok(()));
        }
        assert_eq!(watch.to_client(&message(SESSION_SETUP, SUCCESS, 0, [0; 8])[..64]), Err(Kind::Guest));
    }

    #[test]
    fn a_log_in_that_is_refused_says_why() {
        let watch = &mut Watch::new(Dialect::Smb300, Encryption::Off);
        for (status, kind) in [
            (0xc000_006d, Kind::Auth),
            (0xc000_0072, Kind::Auth),
            (0xc000_0234, Kind::Auth),
            (ACCESS_DENIED, Kind::Policy(Breach::EncryptionOff)),
            (REQUEST_NOT_ACCEPTED, Kind::Busy),
        ] {
            assert_eq!(set_up(watch, status, 0), Err(kind));
        }
    }

    #[test]
    fn nothing_hides_behind_another_message_before_a_log_in_has_succeeded() {
        let mut watch = Watch::new(Dialect::Smb300, Encryption::Off);
        let behind = |command: u16| {
            let mut head = message(command, SUCCESS, 0, [9, 0, 0, 0, 0, 0, 0, 0]);
            head[20] = 72;
            head
        };
        for command in [NEGOTIATE, SESSION_SETUP, ECHO, CREATE] {
            assert_eq!(watch.to_client(&behind(command)), Err(Kind::Unreachable));
        }
        assert_eq!(set_up(&mut watch, SUCCESS, 0), Ok(()));
        assert_eq!(watch.to_client(&behind(CREATE)), Ok(()));
        assert_eq!(watch.to_client(&behind(SESSION_SETUP)), Err(Kind::Unreachable));
    }

    #[test]
    fn what_speaks_no_smb_is_nobody() {
        let mut watch = Watch::new(Dialect::Smb300, Encryption::Off);
        for answer in [&b"HTTP/1.1 400 Bad Request"[..], b"", b"\xfeSMB"] {
            assert_eq!(watch.to_client(answer), Err(Kind::Unreachable));
        }
    }
}
