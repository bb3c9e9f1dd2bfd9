//! Which endpoint, and how it is reached.

use std::path::PathBuf;

use super::value;

/// The variable that clients of OpenAI read.
pub(crate) const API_KEY_ENV: &str = "OPENAI_API_KEY";

/// Which endpoint, and how it is reached.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Endpoint")]
pub(crate) struct EndpointArguments {
    /// Where the endpoint is, such as http://127.0.0.1:8000
    #[arg(long, alias = "base-url", value_name = "URL")]
    pub(crate) url: String,

    /// What is asked for; chat or completions [default: /v1/completions]
    #[arg(long, value_name = "PATH")]
    pub(crate) endpoint: Option<String>,

    /// What requests call the model [default: the only one that the endpoint lists]
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,

    /// A header of every request, such as 'X-Team: search'; can be repeated
    #[arg(long, value_name = "NAME: VALUE", value_parser = value::header)]
    pub(crate) header: Vec<(String, String)>,

    /// The environment variable that has the API key
    #[arg(long, value_name = "VARIABLE", default_value = API_KEY_ENV)]
    pub(crate) api_key_env: String,

    /// HTTP/2 in place of HTTP/1.1
    #[arg(long)]
    pub(crate) http2: bool,

    /// Certificates to trust, in PEM [default: those that the system trusts]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,

    /// Most connections at once; requests beyond them wait [default: no limit]
    #[arg(long, value_name = "N")]
    pub(crate) connections: Option<std::num::NonZeroUsize>,
}
