//! End to end: real daemons as processes, real TLS over loopback, real files. Nothing is mocked.
//!
//! Each module is one area. Every device has its own temporary directory and ports, so that tests
//! run side by side; nothing waits but `eventually`, and `killed` for the moment of a kill.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails it where it stands"
)]

mod address_books;
mod anew;
mod backup;
mod chaos;
mod conflicts;
mod demo;
mod discovery;
mod failover;
mod faults;
mod forgotten;
mod hostile;
mod joining;
mod killed;
mod monitor;
mod newer;
mod pairing;
mod personal;
mod records;
mod refused;
mod replica;
mod returning;
mod sharing;
mod storage;
mod sync;
