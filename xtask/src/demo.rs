//! `cargo xtask demo`.
/// Demo
#[derive(clap::Args)]
pub struct Args {}
/// The verb.
pub fn verb(_: &Args) -> anyhow::Result<()> {
    Ok(())
}
