//! Generates the messages and services with `protox`, so that no `protoc` has to be installed.

use std::error::Error;
use std::path::Path;
use std::{env, fs};

const FILES: [&str; 7] = [
    "proto/sync.proto",
    "proto/replica.proto",
    "proto/enroll.proto",
    "proto/local.proto",
    "proto/panel.proto",
    "proto/monitor.proto",
    "proto/backup.proto",
];
/// Speaks of items and revisions in the words of two others.
const RECORDS: [&str; 1] = ["proto/records.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    tonic_prost_build::configure().bytes(".").compile_fds(protox::compile(FILES, ["proto"])?)?;
    let records = protox::compile(RECORDS, ["proto"])?;
    // Apart: the packages it leans on come out again, and empty.
    let apart = Path::new(&env::var("OUT_DIR")?).join("records");
    fs::create_dir_all(&apart)?;
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(apart)
        .extern_path(".mfpsync.local.v1", "crate::local")
        .extern_path(".mfpsync.panel.v1", "crate::panel")
        .compile_fds(records)?;
    Ok(())
}
