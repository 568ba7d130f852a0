//! The recovery kit of a group that exists, read again when a device is to be certified.
//!
//! Called by `replication set`, `transfer`, `recover` and `backup`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::exit::Failure;
use crate::secret::{self, Secret};

/// More than any kit; a larger file is the wrong file.
const MAX_KIT_BYTES: u64 = 64 << 10;

/// A recovery kit and what it was wrapped with.
#[derive(Debug)]
pub(crate) struct Kit {
    pub(crate) text: Secret,
    pub(crate) passphrase: Secret,
}

impl Kit {
    /// Reads a kit that is there; its passphrase is the file's first line, or asked for.
    ///
    /// # Errors
    /// `Failure::File`, or nobody can be asked.
    pub(crate) async fn open(path: &Path, passphrase_file: Option<&Path>) -> Result<Self, Failure> {
        Ok(Self {
            text: read(path)?,
            passphrase: secret::passphrase_of("the recovery kit", passphrase_file).await?,
        })
    }
}

fn read(path: &Path) -> Result<Secret, Failure> {
    let failure = |source| Failure::File { action: "read the recovery kit", path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).map_err(failure)?.take(MAX_KIT_BYTES).read_to_string(&mut text).map_err(failure)?;
    Ok(Secret::new(text))
}
