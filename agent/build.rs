//! Compiles the messages of the container runtime interface without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let schema = "src/source/container/runtime/cri";
    println!("cargo::rerun-if-changed={schema}/cri.proto");
    println!("cargo::rerun-if-changed={schema}/events.proto");
    let messages =
        protox::compile([format!("{schema}/cri.proto"), format!("{schema}/events.proto")], [schema])?;
    prost_build::Config::new().btree_map(["."]).compile_fds(messages)?;
    Ok(())
}
