//! Generates the agent channel from its protobuf file, without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = "proto/sealift/agent/v1/agent.proto";
    println!("cargo::rerun-if-changed={file}");
    let descriptors = protox::compile([file], ["proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
