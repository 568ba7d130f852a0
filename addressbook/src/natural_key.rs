//! By what two entries of different origin are recognised as the same destination.
//!
//! Used when a device's own list is merged into a group's and ids do not match. It compares destinations only: names
//! differ between machines for the same mailbox. It decides nothing about which entry wins.

use crate::entry::{Entry, class, field};

/// A destination in comparable form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NaturalKey {
    /// Mail address, its domain in lower case.
    Mail(String),
    /// Mail address of an Internet fax: another delivery than a mail to the same address.
    InternetFax(String),
    /// Digits of a fax number, in ASCII.
    Fax(String),
    /// Folder on a file server, separators as `/` and the host in lower case (for SMB the path too).
    Folder {
        /// `protocol`, in lower case; empty when the entry names none.
        protocol: String,
        /// `host`.
        host: String,
        /// `path`; empty for the top of the share.
        path: String,
    },
}

impl NaturalKey {
    /// The destination that named texts stand for (see [`field`]); nothing for groups, classes unknown to us and
    /// entries without one.
    pub fn of<'a>(text: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        match text(field::CLASS)? {
            class::EMAIL => mailbox(text(field::MAIL)?).map(Self::Mail),
            class::IFAX => mailbox(text(field::MAIL)?).map(Self::InternetFax),
            class::FAX => digits(text(field::NUMBER)?).map(Self::Fax),
            class::FOLDER => {
                let protocol = text(field::PROTOCOL).unwrap_or_default();
                folder(protocol, text(field::HOST)?, text(field::PATH).unwrap_or_default())
            }
            _ => None,
        }
    }
}

impl Entry {
    /// The destination this entry stands for, as [`NaturalKey::of`] its texts.
    #[must_use]
    pub fn natural_key(&self) -> Option<NaturalKey> {
        NaturalKey::of(|name| self.text(name))
    }
}

fn folder(protocol: &str, host: &str, path: &str) -> Option<NaturalKey> {
    let protocol = protocol.to_ascii_lowercase();
    let (mut host, mut path) = (separators(host), separators(path));
    if host.is_empty() {
        return None;
    }
    // Windows shares ignore case throughout; elsewhere only the server's name does.
    if protocol == "smb" {
        host = host.to_lowercase();
        path = path.to_lowercase();
    } else {
        let server_len = host.find("://").map_or(0, |at| at + 3);
        let server_end = host[server_len..].find('/').map_or(host.len(), |at| server_len + at);
        host[..server_end].make_ascii_lowercase();
    }
    Some(NaturalKey::Folder { protocol, host, path })
}

fn mailbox(address: &str) -> Option<String> {
    let (local, domain) = address.trim().rsplit_once('@')?;
    (!local.is_empty() && !domain.is_empty()).then(|| format!("{local}@{}", domain.to_lowercase()))
}

/// Digits alone: hyphens, blanks and pauses differ between lists. Full-width digits count, as Japanese input has them.
fn digits(number: &str) -> Option<String> {
    let digits: String = number
        .chars()
        .filter_map(|char| match char {
            '0'..='9' => Some(char),
            '０'..='９' => char::from_digit(char as u32 - '０' as u32, 10),
            _ => None,
        })
        .collect();
    (!digits.is_empty()).then_some(digits)
}

fn separators(path: &str) -> String {
    path.trim().replace('\\', "/").trim_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Value;

    fn key(fields: &[(&str, &str)]) -> Option<NaturalKey> {
        let fields =
            fields.iter().map(|(name, text)| ((*name).to_owned(), Value::Text((*text).to_owned()))).collect();
        Entry { id: "x".to_owned(), fields }.natural_key()
    }

    #[test]
    fn mail_addresses_match_whatever_the_case_of_the_domain() {
        let a = key(&[("class", "email"), ("mail", "Ann@Example.COM")]);
        assert_eq!(a, Some(NaturalKey::Mail("Ann@example.com".to_owned())));
        assert_ne!(
            a,
            key(&[("class", "email"), ("mail", "ann@example.com")]),
            "local parts may be case-sensitive"
        );
        assert_ne!(a, key(&[("class", "ifax"), ("mail", "Ann@example.com")]));
    }

    #[test]
    fn fax_numbers_match_by_their_digits() {
        let plain = key(&[("class", "fax"), ("number", "0312345678")]);
        assert_eq!(plain, key(&[("class", "fax"), ("number", "03-1234 5678")]));
        assert_eq!(plain, key(&[("class", "fax"), ("number", "０３-１２３４-５６７８")]));
        assert_eq!(None, key(&[("class", "fax"), ("number", "-")]));
    }

    #[test]
    fn shares_match_whatever_case_and_separator() {
        let a = key(&[
            ("class", "folder"),
            ("protocol", "smb"),
            ("host", r"\\NAS\Scan"),
            ("path", r"users\ann"),
            ("username", "ann"),
        ]);
        let b = key(&[
            ("class", "folder"),
            ("protocol", "smb"),
            ("host", "//nas/scan/"),
            ("path", "/Users/Ann/"),
        ]);
        assert_eq!(a, b);
        let ftp =
            |host, path| key(&[("class", "folder"), ("protocol", "ftp"), ("host", host), ("path", path)]);
        assert_eq!(ftp("ftp://FTP.example.com/In", "a"), ftp("ftp://ftp.example.com/In", "a"));
        assert_ne!(ftp("ftp.example.com", "A"), ftp("ftp.example.com", "a"));
    }

    #[test]
    fn groups_and_unknown_classes_have_no_destination() {
        assert_eq!(None, key(&[("class", "group"), ("name", "all")]));
        assert_eq!(None, key(&[("class", "ipfax"), ("number", "1")]));
        assert_eq!(None, key(&[("class", "email")]));
    }
}
