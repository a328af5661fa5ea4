//! `trictl describe`.
use super::errors::Result;
use super::session::Session;
use serde_json::Value;
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DescribeArgs {
    pub words: Vec<String>,
}
pub async fn run(_: &Session, _: &DescribeArgs) -> Result<()> {
    Ok(())
}
pub fn pod_template(_: &Value) -> String {
    String::new()
}
