//! What every parser of foreign bytes must hold for, as functions of bytes: they return or panic.
//!
//! Two run them: `tests/tests/fuzz`, briefly, with mutations of samples, in every `make test`; and `tests/fuzz`, for
//! as long as somebody likes, with libFuzzer, which looks where the code branches. A parser belongs here when its bytes
//! come from a file, a socket or another device.

#![expect(clippy::unwrap_used, clippy::panic, reason = "to panic is how a target tells what it found")]

mod archives;
mod books;
mod mutation;
mod process;
mod records;
mod shares;

use std::fs;
use std::path::{Path, PathBuf};

pub use mutation::{Random, mutate};

/// A parser, and bytes it takes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As it is asked for, and as its directories are called.
    pub name: &'static str,
    /// Panics where the parser does not hold what it should; says whether it took the bytes.
    pub run: fn(&[u8]) -> bool,
    /// To begin with.
    samples: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 15] = [
    Target { name: "csv", run: books::csv, samples: books::csv_samples },
    Target { name: "abk", run: books::abk, samples: books::abk_samples },
    Target { name: "ldif", run: books::ldif, samples: books::ldif_samples },
    Target { name: "vcard", run: books::vcard, samples: books::vcard_samples },
    Target { name: "record", run: records::record, samples: records::record_samples },
    Target { name: "message", run: records::message, samples: records::message_samples },
    Target { name: "control", run: process::control, samples: process::control_samples },
    Target { name: "config", run: process::config, samples: process::config_samples },
    Target { name: "debug", run: process::debug, samples: process::debug_samples },
    Target { name: "kit", run: process::kit, samples: process::kit_samples },
    Target { name: "smb", run: shares::smb, samples: shares::smb_samples },
    Target { name: "name", run: shares::name, samples: shares::name_samples },
    Target { name: "helper", run: shares::helper, samples: shares::helper_samples },
    Target { name: "manifest", run: archives::manifest, samples: archives::manifest_samples },
    Target { name: "archived", run: archives::archived, samples: archives::archived_samples },
];

impl Target {
    /// The target of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.into_iter().find(|target| target.name == name)
    }

    /// Bytes to begin with: the samples, and all that once was a fault.
    ///
    /// # Panics
    /// A file cannot be read.
    #[must_use]
    pub fn corpus(&self) -> Vec<Vec<u8>> {
        let found = root().join("tests/fuzz/found").join(self.name);
        let files = fs::read_dir(found).into_iter().flatten().map(|entry| file(&entry.unwrap().path()));
        (self.samples)().into_iter().chain(files).collect()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn file(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
