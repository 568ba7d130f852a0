//! Where the archives go, and as whom.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::store::{Error, Kind, Name, Result};

/// Longest user, domain and password, in bytes: libsmbclient would cut longer ones off without a word.
const LONGEST_CREDENTIAL: usize = 255;
/// Longest name of a share. **Source**: \[MS-SMB2\] and \[MS-SRVS\], the limit of Windows.
const LONGEST_SHARE: usize = 80;
const LONGEST_FOLDER: usize = 200;
const LONGEST_HOST: usize = 253;

/// A password: never shown, overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a password.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The password itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The oldest SMB that is spoken; the floor is 3.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dialect {
    /// SMB 3.0, of 2012.
    Smb300,
    /// SMB 3.0.2.
    Smb302,
    /// SMB 3.1.1, whose negotiation cannot be tampered with unseen.
    Smb311,
}

impl Dialect {
    /// Its number in a negotiation.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Smb300 => 0x0300,
            Self::Smb302 => 0x0302,
            Self::Smb311 => 0x0311,
        }
    }

    /// The dialect with this number in a negotiation.
    #[must_use]
    pub fn of_number(number: u64) -> Option<Self> {
        [Self::Smb300, Self::Smb302, Self::Smb311]
            .into_iter()
            .find(|dialect| u64::from(dialect.number()) == number)
    }
}

/// Whether the connection is encrypted. The archive itself always is, and the connection always signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Nothing but log-in and the share's name leaves in clear; a server that cannot is refused.
    Required,
    /// Where the server can.
    Preferred,
    /// Only where the server demands it.
    Off,
}

impl Encryption {
    /// What stands for it in an encoding.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Required => 0,
            Self::Preferred => 1,
            Self::Off => 2,
        }
    }

    /// What a byte of an encoding stands for.
    #[must_use]
    pub fn of_byte(byte: u8) -> Option<Self> {
        [Self::Required, Self::Preferred, Self::Off].into_iter().find(|encryption| encryption.byte() == byte)
    }
}

/// One folder of one share, and the account for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name or address of the server.
    pub host: String,
    /// Its TCP port; 445 unless it is a special one.
    pub port: u16,
    /// Whether it may be this machine, which is for tests.
    pub this_machine: bool,
    /// Name of the share.
    pub share: String,
    /// Folder in the share that exists, its parts separated by `/`; empty for the share itself.
    pub folder: String,
    /// Folder of this group in that, made if it is missing.
    pub own_folder: Name,
    /// Domain of the account; empty for one of the server's own.
    pub domain: String,
    /// Name of the account.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The oldest SMB that is spoken.
    pub minimum: Dialect,
    /// Whether the connection is encrypted.
    pub encryption: Encryption,
    /// How long the server may stay silent.
    pub patience: Duration,
}

impl Target {
    /// Whether all of it can be used; nothing is sent otherwise.
    ///
    /// # Errors
    /// [`Kind::Auth`] without a user or with a credential that is too long, [`Kind::InvalidName`] for host,
    /// share or folder.
    pub fn check(&self) -> Result<()> {
        let credential = |text: &str| text.len() <= LONGEST_CREDENTIAL && !text.contains('\0');
        if self.user.trim().is_empty() || ![&self.user, &self.domain].into_iter().all(|text| credential(text))
        {
            return Err(Error::new("check user", Kind::Auth));
        }
        if self.password.reveal().is_empty() || !credential(self.password.reveal()) {
            return Err(Error::new("check password", Kind::Auth));
        }
        let host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
        if self.host.is_empty()
            || self.host.len() > LONGEST_HOST
            || !self.host.bytes().all(host)
            || self.port == 0
        {
            return Err(Error::new("check host", Kind::InvalidName));
        }
        if !part(&self.share, LONGEST_SHARE) {
            return Err(Error::new("check share", Kind::InvalidName));
        }
        if !self.folder.is_empty() && !self.folder.split('/').all(|name| part(name, LONGEST_FOLDER)) {
            return Err(Error::new("check folder", Kind::InvalidName));
        }
        Ok(())
    }
}

impl Target {
    /// Whether an address that the host's name stands for may be dialled: none that no server has, and none by which
    /// a machine is told its own secrets.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            address if address.is_loopback() => self.this_machine,
            IpAddr::V4(address) => {
                !(address.is_unspecified()
                    || address.is_link_local()
                    || address.is_multicast()
                    || address.is_broadcast())
            }
            IpAddr::V6(address) => {
                !(address.is_unspecified() || address.is_unicast_link_local() || address.is_multicast())
            }
        }
    }
}

/// Whether this is the name of one folder, and no way out of it.
fn part(name: &str, longest: usize) -> bool {
    let forbidden = |found: char| found.is_control() || r#"/\:*?"<>|"#.contains(found);
    !name.is_empty() && name.len() <= longest && !name.contains(forbidden) && !name.ends_with(['.', ' '])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            host: "nas.example.com".to_owned(),
            port: 445,
            this_machine: false,
            share: "backup".to_owned(),
            folder: "office/2. Stock".to_owned(),
            own_folder: Name::parse("g0").expect("name"),
            domain: String::new(),
            user: "printer".to_owned(),
            password: Secret::new("s3cret-canary".to_owned()),
            minimum: Dialect::Smb311,
            encryption: Encryption::Preferred,
            patience: Duration::from_secs(5),
        }
    }

    #[test]
    fn a_target_without_user_or_password_is_never_dialled() {
        assert_eq!(target().check(), Ok(()));
        for user in ["", " ", "nul\0", &"u".repeat(256)] {
            let refused = Target { user: user.to_owned(), ..target() }.check();
            assert_eq!(refused.expect_err(user).kind, Kind::Auth);
        }
        for password in ["".to_owned(), "p".repeat(256)] {
            let refused = Target { password: Secret::new(password), ..target() }.check();
            assert_eq!(refused.expect_err("password").kind, Kind::Auth);
        }
    }

    #[test]
    fn no_name_leads_out_of_its_folder() {
        for folder in ["..", "a/../b", "a//b", "/a", "a\\b", "a?b", "a:b", "a/ "] {
            let refused = Target { folder: folder.to_owned(), ..target() }.check();
            assert_eq!(refused.expect_err(folder).kind, Kind::InvalidName);
        }
        for host in ["", "a/b", "user@host", "host?x"] {
            let refused = Target { host: host.to_owned(), ..target() }.check();
            assert_eq!(refused.expect_err(host).kind, Kind::InvalidName);
        }
        assert_eq!(Target { folder: "Büro 100%".to_owned(), ..target() }.check(), Ok(()));
    }

    #[test]
    fn some_addresses_are_never_a_server() {
        for good in ["192.0.2.7", "10.0.0.1", "2001:db8::7", "fd00::7"] {
            assert!(target().allows(good.parse().expect("address")), "{good}");
        }
        let mut bad =
            vec!["0.0.0.0", "127.0.0.1", "127.9.9.9", "169.254.169.254", "224.0.0.251", "255.255.255.255"];
        bad.extend(["::", "::1", "fe80::1", "ff02::fb", "::ffff:127.0.0.1", "::ffff:169.254.169.254"]);
        for bad in bad {
            assert!(!target().allows(bad.parse().expect("address")), "{bad}");
        }
        assert!(Target { this_machine: true, ..target() }.allows("127.0.0.1".parse().expect("address")));
    }

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", target()).contains("canary"));
    }
}
