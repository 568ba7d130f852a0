//! Counting and hashing what passes.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use crate::manifest::File;

/// A reader or writer, with how much passed through it and the SHA-256 of that.
#[derive(Debug)]
pub(crate) struct Digested<T> {
    inner: T,
    hasher: Sha256,
    bytes: u64,
}

impl<T> Digested<T> {
    /// Nothing has passed yet.
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, hasher: Sha256::new(), bytes: 0 }
    }

    /// How much has passed.
    pub(crate) fn passed(&self) -> u64 {
        self.bytes
    }

    /// What has passed, and what it passed to or from.
    pub(crate) fn finish(self) -> (File, T) {
        (File { bytes: self.bytes, sha256: self.hasher.finalize().into() }, self.inner)
    }

    fn note(&mut self, passed: &[u8]) {
        self.hasher.update(passed);
        self.bytes += passed.len() as u64;
    }
}

impl<W: Write> Write for Digested<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.note(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Digested<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.note(&into[..read]);
        Ok(read)
    }
}
