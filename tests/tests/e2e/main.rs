//! End to end: real daemons as processes, real TLS over loopback, real files. Nothing is mocked.
//!
//! Each module is one area. Every device has its own temporary directory and ports, so that tests
//! run side by side; nothing waits but `eventually`.

mod chaos;
mod conflicts;
mod faults;
mod hostile;
mod pairing;
mod refused;
mod storage;
mod sync;
