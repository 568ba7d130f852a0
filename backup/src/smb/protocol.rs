//! The frames between this library and the helper program: one answer to each request, in order.
//!
//! A frame is its length in four bytes, big-endian, then a tag byte and what belongs to it in the canonical
//! encoding. Both ends are of one release: the version only finds a helper that was left behind by an
//! upgrade. The first request is [`Request::Begin`], and there is one in the life of a helper.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use mfpsync_storage::codec::{DecodeError, Decoder, Encoder};

use super::target::{Dialect, Encryption, Secret, Target};
use crate::store::{Breach, CHUNK, Entry, Kind, MOST_ENTRIES, Name, Protection};

const VERSION: u64 = 1;
/// Largest frame: a chunk, or a full listing, with its tag and lengths.
const LARGEST: usize = CHUNK + (64 << 10);

/// What the helper is asked for. See [`crate::store::Connection`].
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Connect there.
    Begin(Box<Target>),
    /// Ask for free bytes.
    Room,
    /// List the folder.
    List,
    /// Look at a file.
    Size(Name),
    /// Make a file and open it for writing.
    Create(Name),
    /// Open a file for writing on.
    Resume(Name, u64),
    /// Append to the open file.
    Write(&'a [u8]),
    /// Close the file that is open for writing.
    Finish,
    /// Open a file for reading.
    Open(Name),
    /// Read on.
    Read,
    /// Rename a file to a free name.
    Rename(Name, Name),
    /// Remove a file.
    Remove(Name),
}

/// What the helper answers.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Connected, and so well protected.
    Begun(Protection),
    /// Done.
    Done,
    /// Free bytes.
    Room(u64),
    /// All files of the folder.
    Entries(Vec<Entry>),
    /// A file's size, if there is such a file.
    Size(Option<u64>),
    /// Bytes of the open file, none at its end.
    Bytes(&'a [u8]),
    /// It did not happen, or nobody knows.
    Failed {
        /// What went wrong.
        kind: Kind,
        /// The system's number for it.
        number: Option<i32>,
    },
}

/// Sends one frame.
///
/// # Errors
/// As `to`.
pub fn send(to: &mut impl Write, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(body)?;
    to.flush()
}

/// Receives one frame.
///
/// # Errors
/// As `from`; [`ErrorKind::UnexpectedEof`] at its end, [`ErrorKind::InvalidData`] for a frame that is too
/// large or empty.
pub fn receive(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length == 0 || length > LARGEST {
        return Err(ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    Ok(body)
}

impl<'a> Request<'a> {
    /// The frame's body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::new();
        match self {
            Self::Begin(target) => begin(to.fixed(&[0]), target),
            Self::Room => to.fixed(&[1]),
            Self::List => to.fixed(&[2]),
            Self::Size(name) => to.fixed(&[3]).text(name.as_str()),
            Self::Create(name) => to.fixed(&[4]).text(name.as_str()),
            Self::Resume(name, offset) => to.fixed(&[5]).text(name.as_str()).varint(*offset),
            Self::Write(bytes) => to.fixed(&[6]).bytes(bytes),
            Self::Finish => to.fixed(&[7]),
            Self::Open(name) => to.fixed(&[8]).text(name.as_str()),
            Self::Read => to.fixed(&[9]),
            Self::Rename(from, onto) => to.fixed(&[10]).text(from.as_str()).text(onto.as_str()),
            Self::Remove(name) => to.fixed(&[11]).text(name.as_str()),
        };
        to.finish()
    }

    /// Reads a frame's body.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(body);
        let request = match from.byte()? {
            0 => Self::Begin(Box::new(target(&mut from)?)),
            1 => Self::Room,
            2 => Self::List,
            3 => Self::Size(name(&mut from)?),
            4 => Self::Create(name(&mut from)?),
            5 => Self::Resume(name(&mut from)?, from.varint()?),
            6 => Self::Write(chunk(&mut from)?),
            7 => Self::Finish,
            8 => Self::Open(name(&mut from)?),
            9 => Self::Read,
            10 => Self::Rename(name(&mut from)?, name(&mut from)?),
            11 => Self::Remove(name(&mut from)?),
            _ => return Err(DecodeError::Invalid("unknown request")),
        };
        from.finish()?;
        Ok(request)
    }
}

impl<'a> Answer<'a> {
    /// The frame's body.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Encoder::new();
        match self {
            Self::Begun(Protection::Local) => to.fixed(&[0, 0]),
            Self::Begun(Protection::Signed(dialect)) => to.fixed(&[0, 1]).varint(u64::from(*dialect)),
            Self::Begun(Protection::Encrypted(dialect)) => to.fixed(&[0, 2]).varint(u64::from(*dialect)),
            Self::Done => to.fixed(&[1]),
            Self::Room(bytes) => to.fixed(&[2]).varint(*bytes),
            Self::Entries(entries) => {
                to.fixed(&[3]).varint(entries.len() as u64);
                for entry in entries {
                    to.text(entry.name.as_str()).varint(entry.size);
                }
                &mut to
            }
            Self::Size(size) => to.fixed(&[4]).optional(*size),
            Self::Bytes(bytes) => to.fixed(&[5]).bytes(bytes),
            Self::Failed { kind, number } => to
                .fixed(&[6, number_of(*kind)])
                .optional(number.map(|number| u64::from(number.cast_unsigned()))),
        };
        to.finish()
    }

    /// Reads a frame's body.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(body);
        let answer = match from.byte()? {
            0 => Self::Begun(match from.byte()? {
                0 => Protection::Local,
                1 => Protection::Signed(dialect(&mut from)?),
                2 => Protection::Encrypted(dialect(&mut from)?),
                _ => return Err(DecodeError::Invalid("unknown protection")),
            }),
            1 => Self::Done,
            2 => Self::Room(from.varint()?),
            3 => Self::Entries(entries(&mut from)?),
            4 => Self::Size(from.optional()?),
            5 => Self::Bytes(chunk(&mut from)?),
            6 => {
                let kind = kind_of(from.byte()?).ok_or(DecodeError::Invalid("unknown failure"))?;
                let number = from.optional()?.map(u32::try_from).transpose();
                let number = number.map_err(|_| DecodeError::Invalid("number over 32 bits"))?;
                Self::Failed { kind, number: number.map(u32::cast_signed) }
            }
            _ => return Err(DecodeError::Invalid("unknown answer")),
        };
        from.finish()?;
        Ok(answer)
    }
}

fn begin<'e>(to: &'e mut Encoder, target: &Target) -> &'e mut Encoder {
    to.varint(VERSION)
        .text(&target.host)
        .varint(u64::from(target.port))
        .fixed(&[u8::from(target.this_machine)])
        .text(&target.share)
        .text(&target.folder)
        .text(target.own_folder.as_str())
        .text(&target.domain)
        .text(&target.user)
        .text(target.password.reveal())
        .varint(u64::from(target.minimum.number()))
        .fixed(&[target.encryption.byte()])
        .varint(u64::try_from(target.patience.as_millis()).unwrap_or(u64::MAX))
}

fn target(from: &mut Decoder<'_>) -> Result<Target, DecodeError> {
    if from.varint()? != VERSION {
        return Err(DecodeError::Invalid("helper of another release"));
    }
    Ok(Target {
        host: from.text()?.to_owned(),
        port: u16::try_from(from.varint()?).map_err(|_| DecodeError::Invalid("port over 65535"))?,
        this_machine: from.flag()?,
        share: from.text()?.to_owned(),
        folder: from.text()?.to_owned(),
        own_folder: name(from)?,
        domain: from.text()?.to_owned(),
        user: from.text()?.to_owned(),
        password: Secret::new(from.text()?.to_owned()),
        minimum: Dialect::of_number(from.varint()?).ok_or(DecodeError::Invalid("unknown dialect"))?,
        encryption: Encryption::of_byte(from.byte()?)
            .ok_or(DecodeError::Invalid("unknown demand of encryption"))?,
        patience: Duration::from_millis(from.varint()?),
    })
}

fn name(from: &mut Decoder<'_>) -> Result<Name, DecodeError> {
    Name::parse(from.text()?).map_err(|_| DecodeError::Invalid("no name of a file"))
}

fn dialect(from: &mut Decoder<'_>) -> Result<u16, DecodeError> {
    u16::try_from(from.varint()?).map_err(|_| DecodeError::Invalid("dialect over 16 bits"))
}

fn chunk<'a>(from: &mut Decoder<'a>) -> Result<&'a [u8], DecodeError> {
    let bytes = from.bytes()?;
    if bytes.len() > CHUNK { Err(DecodeError::Invalid("chunk too large")) } else { Ok(bytes) }
}

fn entries(from: &mut Decoder<'_>) -> Result<Vec<Entry>, DecodeError> {
    let count = from.count()?;
    if count > MOST_ENTRIES {
        return Err(DecodeError::Invalid("too many entries"));
    }
    (0..count).map(|_| Ok(Entry { name: name(from)?, size: from.varint()? })).collect()
}

/// All kinds; the place is the number in a frame.
const KINDS: [Kind; 24] = [
    Kind::Auth,
    Kind::Guest,
    Kind::Policy(Breach::Dialect),
    Kind::Policy(Breach::Signing),
    Kind::Policy(Breach::Encryption),
    Kind::Policy(Breach::EncryptionOff),
    Kind::NoSuchShare,
    Kind::NotFound,
    Kind::Denied,
    Kind::Full,
    Kind::Exists,
    Kind::WrongType,
    Kind::Busy,
    Kind::Lost,
    Kind::Timeout,
    Kind::Unreachable,
    Kind::Altered,
    Kind::InvalidName,
    Kind::TooMany,
    Kind::Helper,
    Kind::Source,
    Kind::Cancelled,
    Kind::Other,
    Kind::NoRoomHere,
];

fn number_of(kind: Kind) -> u8 {
    let place = KINDS.iter().position(|&known| known == kind);
    place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
}

fn kind_of(number: u8) -> Option<Kind> {
    KINDS.get(usize::from(number)).copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("name")
    }

    fn target() -> Target {
        Target {
            host: "192.0.2.7".to_owned(),
            port: 1445,
            this_machine: true,
            share: "backup".to_owned(),
            folder: "a/b".to_owned(),
            own_folder: name("group"),
            domain: "OFFICE".to_owned(),
            user: "printer".to_owned(),
            password: Secret::new("pässword".to_owned()),
            minimum: Dialect::Smb302,
            encryption: Encryption::Off,
            patience: Duration::from_millis(1_500),
        }
    }

    #[test]
    fn every_request_arrives_as_it_was_sent() {
        let requests = [
            Request::Begin(Box::new(target())),
            Request::Room,
            Request::List,
            Request::Size(name("a")),
            Request::Create(name("a.part")),
            Request::Resume(name("a.part"), u64::MAX),
            Request::Write(b"bytes"),
            Request::Finish,
            Request::Open(name("a")),
            Request::Read,
            Request::Rename(name("a"), name("b")),
            Request::Remove(name("b")),
        ];
        let mut pipe = Vec::new();
        for request in &requests {
            send(&mut pipe, &request.encode()).expect("send");
        }
        let mut pipe = &pipe[..];
        for request in &requests {
            let body = receive(&mut pipe).expect("receive");
            assert_eq!(Request::decode(&body).as_ref(), Ok(request));
        }
        assert_eq!(receive(&mut pipe).expect_err("end").kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn every_answer_arrives_as_it_was_sent() {
        let mut answers = vec![
            Answer::Begun(Protection::Local),
            Answer::Begun(Protection::Signed(0x0302)),
            Answer::Begun(Protection::Encrypted(0x0311)),
            Answer::Done,
            Answer::Room(1 << 50),
            Answer::Entries(vec![
                Entry { name: name("a"), size: 5 << 30 },
                Entry { name: name("b"), size: 0 },
            ]),
            Answer::Size(None),
            Answer::Size(Some(7)),
            Answer::Bytes(b""),
        ];
        answers.extend(KINDS.map(|kind| Answer::Failed { kind, number: Some(-13) }));
        for answer in answers {
            assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        }
    }

    #[test]
    fn a_frame_that_is_too_large_is_not_read() {
        let length = u32::try_from(LARGEST + 1).expect("length").to_be_bytes();
        assert_eq!(receive(&mut &length[..]).expect_err("refused").kind(), ErrorKind::InvalidData);
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_readers(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(request) = Request::decode(&body) {
                prop_assert_eq!(request.encode(), body.clone());
            }
            let _either = Answer::decode(&body);
        }
    }
}
