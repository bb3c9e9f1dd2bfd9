//! What things are called: accounts, models and deployments, and how a request names them.
//!
//! ```text
//! accounts/acme/models/llama-3-8b                          a model of an account (S05)
//! accounts/acme/deployments/chat                           a deployment; its id is the last part (S10)
//! accounts/acme/models/llama-3-8b#accounts/acme/deployments/chat    that model, on that deployment (B11)
//! ```

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The longest id, as of a label in the domain name system (RFC 1035, section 2.3.4).
const ID_LENGTH_MAX: usize = 63;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// The text cannot be the id of anything.
    #[error(
        "{text:?} is not an id: write 1 to 63 lower-case letters, digits, '-' and '.', \
         beginning and ending with a letter or a digit"
    )]
    Id {
        /// What was written.
        text: String,
    },
    /// The text is not of the form that such a name has.
    #[error("{text:?} is not a name of the form {form}")]
    Form {
        /// What was written.
        text: String,
        /// What such a name looks like.
        form: &'static str,
    },
}

/// Ids are what is left when the rest of a name is taken away: short enough to
/// be part of an address, and without the characters that divide names.
fn is_id(text: &str) -> bool {
    let outer = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let inner = |byte: u8| outer(byte) || byte == b'-' || byte == b'.';
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    bytes.len() <= ID_LENGTH_MAX && outer(first) && outer(last) && bytes.iter().copied().all(inner)
}

/// The three kinds of id differ in what they may be mixed up with: nothing.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// The id as it is written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                if is_id(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(NameError::Id { text: text.into() })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// Which account.
    AccountId
}
id! {
    /// Which model, within an account or within the catalogue.
    ModelId
}
id! {
    /// Which deployment, within an account.
    DeploymentId
}

/// A model of an account: `accounts/A/models/M`. Requests name it (S07).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelName {
    /// Whose.
    pub account: AccountId,
    /// Which.
    pub model: ModelId,
}

/// A deployment of an account: `accounts/A/deployments/D` (S10).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeploymentName {
    /// Whose.
    pub account: AccountId,
    /// Which.
    pub deployment: DeploymentId,
}

/// What a request asks for: `MODEL`, or `MODEL#DEPLOYMENT` (B11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryName {
    /// The model, or adapter.
    pub model: ModelName,
    /// The deployment that is to serve it; `None` is the model's default.
    pub deployment: Option<DeploymentName>,
}

/// The account and the id in `accounts/<account>/<collection>/<id>`.
fn parts<'a>(text: &'a str, collection: &str) -> Option<(&'a str, &'a str)> {
    let mut parts = text.split('/');
    let is_account = parts.next() == Some("accounts");
    let account = parts.next()?;
    let is_collection = parts.next() == Some(collection);
    let id = parts.next()?;
    (is_account && is_collection && parts.next().is_none()).then_some((account, id))
}

impl FromStr for ModelName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (account, model) = parts(text, "models").ok_or_else(|| NameError::Form {
            text: text.into(),
            form: "accounts/<ACCOUNT_ID>/models/<MODEL_ID>",
        })?;
        Ok(Self {
            account: account.parse()?,
            model: model.parse()?,
        })
    }
}

impl FromStr for DeploymentName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (account, deployment) = parts(text, "deployments").ok_or_else(|| NameError::Form {
            text: text.into(),
            form: "accounts/<ACCOUNT_ID>/deployments/<DEPLOYMENT_ID>",
        })?;
        Ok(Self {
            account: account.parse()?,
            deployment: deployment.parse()?,
        })
    }
}

impl FromStr for QueryName {
    type Err = NameError;

    /// A deployment may be written by its id alone: it is then one of the
    /// account whose model it is.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let Some((model, deployment)) = text.split_once('#') else {
            return Ok(Self {
                model: text.parse()?,
                deployment: None,
            });
        };
        let model: ModelName = model.parse()?;
        let deployment = if deployment.contains('/') {
            deployment.parse()?
        } else {
            DeploymentName {
                account: model.account.clone(),
                deployment: deployment.parse()?,
            }
        };
        Ok(Self {
            model,
            deployment: Some(deployment),
        })
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accounts/{}/models/{}", self.account, self.model)
    }
}

impl fmt::Display for DeploymentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "accounts/{}/deployments/{}",
            self.account, self.deployment
        )
    }
}

impl fmt::Display for QueryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.deployment {
            Some(deployment) => write!(f, "{}#{deployment}", self.model),
            None => self.model.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_short_and_divide_no_name() {
        for good in ["a", "7", "llama-3.1-8b", "a--b", &"x".repeat(63)] {
            assert_eq!(good.parse::<ModelId>().unwrap().as_str(), good);
        }
        let long = "x".repeat(64);
        for bad in [
            "", "-a", "a-", ".a", "a.", "A", "a b", "a/b", "a#b", "a_b", "\u{e4}", &long,
        ] {
            let error = bad.parse::<DeploymentId>().unwrap_err();
            assert_eq!(error, NameError::Id { text: bad.into() });
        }
        assert_eq!(
            "A".parse::<AccountId>().unwrap_err().to_string(),
            "\"A\" is not an id: write 1 to 63 lower-case letters, digits, '-' and '.', \
             beginning and ending with a letter or a digit"
        );
    }

    #[test]
    fn a_name_of_another_form_is_refused_with_the_form() {
        for bad in [
            "chat",
            "accounts/acme/models/chat",
            "accounts/acme/deployments",
            "accounts/acme/deployments/chat/",
            "/accounts/acme/deployments/chat",
        ] {
            let error = bad.parse::<DeploymentName>().unwrap_err().to_string();
            let form = "accounts/<ACCOUNT_ID>/deployments/<DEPLOYMENT_ID>";
            assert_eq!(error, format!("{bad:?} is not a name of the form {form}"));
        }
        let empty = "accounts//models/m".parse::<ModelName>();
        assert_eq!(empty, Err(NameError::Id { text: "".into() }));
    }

    #[test]
    fn a_query_may_name_a_deployment_in_full_or_by_its_id() {
        let full = "accounts/acme/models/m#accounts/other/deployments/d";
        let query: QueryName = full.parse().unwrap();
        assert_eq!(query.to_string(), full);
        let short: QueryName = "accounts/acme/models/m#d".parse().unwrap();
        assert_eq!(
            short.to_string(),
            "accounts/acme/models/m#accounts/acme/deployments/d"
        );
        let plain: QueryName = "accounts/acme/models/m".parse().unwrap();
        assert_eq!(plain.deployment, None);
        for bad in [
            "m",
            "accounts/acme/models/m#",
            "accounts/acme/models/m#d#e",
            "#d",
        ] {
            assert!(bad.parse::<QueryName>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_read_as_it_was_written(
            account in "[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?",
            id in "[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?",
        ) {
            let model = format!("accounts/{account}/models/{id}");
            prop_assert_eq!(model.parse::<ModelName>().unwrap().to_string(), model);
            let deployment = format!("accounts/{account}/deployments/{id}");
            let name: DeploymentName = deployment.parse().unwrap();
            prop_assert_eq!(name.deployment.as_str(), id);
            prop_assert_eq!(name.to_string(), deployment);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<QueryName>();
            let _ = text.parse::<DeploymentName>();
        }
    }
}
