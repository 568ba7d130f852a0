//! Generates the messages and services with `protox`, so that no `protoc` has to be installed.

use std::error::Error;

const FILES: [&str; 4] = ["proto/sync.proto", "proto/enroll.proto", "proto/local.proto", "proto/panel.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
