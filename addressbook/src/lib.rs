//! Address-book files of multifunction printers: bytes to entries and back.
//!
//! Start at [`Entry`], the one shape every format is translated to; then a format: [`csv`]
//! and [`abk`], the vendor's AddressBook CSV and ABK text, [`ldif`] and [`vcard`]. [`read`] takes whichever it is.
//! This crate is pure: it opens no file and no socket, keeps no state and knows nothing of devices, users or
//! storage. The command line and the daemon hand it the bytes and store what comes back.
//!
//! Reading is all or nothing: a file with a single problem yields no entry, and the problems are located by line and
//! column. Texts of errors and notices never repeat what a cell holds, since that is personal data.

pub mod abk;
mod attributes;
pub mod csv;
mod draft;
mod entry;
mod error;
mod format;
mod identity;
pub mod ldif;
mod lines;
mod members;
mod natural_key;
mod numbers;
pub mod vcard;

pub use entry::{Entry, Value, class, field};
pub use error::{
    LeftOut, LeftOutKind, MAX_PROBLEMS, Notice, NoticeKind, Problem, ProblemKind, ReadError, WriteError,
};
pub use format::{Book, Format, read};
pub use natural_key::NaturalKey;
