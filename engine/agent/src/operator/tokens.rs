//! `sealift token`: tokens by which agents enrol; `sealift token api`: tokens for programs that use the API.
//!
//! A secret is shown once: to a file for its owner alone, or on standard output if nothing else was asked for.

use crate::error::{Finish, RunError};
use crate::operator::api::{Kind, id_of};
use crate::operator::login::{Secretive, end_session, with_session};
use crate::operator::login_file::write_secret;
use crate::operator::output::{Form, Listing, note, say, say_json, show_list, time, time_if, yes};
use crate::operator::{Api, PasswordFrom};
use sealift_api::rest::{ApiToken, EnrolmentToken, NewApiToken, NewEnrolmentToken};
use serde_json::Value;
use std::path::Path;
use zeroize::Zeroizing;

/// Tokens by which agents enrol.
const ENROLMENT: Kind =
    Kind { path: "enrolment-tokens", one: "enrolment token that holds", list: "sealift token list" };
/// Tokens of the API.
const API: Kind = Kind { path: "tokens", one: "API token that holds", list: "sealift token api list" };

/// Where a secret goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SecretTo<'f> {
    /// A file; standard output if there is none.
    pub(crate) file: Option<&'f Path>,
    /// For whom the rest is.
    pub(crate) form: Form,
}

impl SecretTo<'_> {
    /// Before there is a secret that could not be kept.
    fn check(&self) -> Result<(), RunError> {
        let Some(file) = self.file else { return Ok(()) };
        let write = || {
            // A device, or whatever a link leads to, is not to be replaced by a secret.
            if file.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
                return Err(std::io::Error::other("there is something else than a file"));
            }
            let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            tempfile::NamedTempFile::new_in(dir).map(drop)
        };
        write().map_err(|error| unwritable(file, &error))
    }

    fn give(&self, mut made: Secretive) -> Result<(), RunError> {
        let Some(Value::String(secret)) = made.0.get_mut("secret").map(Value::take) else {
            return Err(RunError::Failed("the daemon's answer has no secret".into()));
        };
        let secret = Zeroizing::new(secret);
        match (self.file, self.form) {
            (Some(file), form) => {
                write_secret(file, Zeroizing::new(format!("{}\n", *secret)).as_bytes())
                    .map_err(|error| unwritable(file, &error))?;
                match form {
                    Form::Json => say_json(&made.0["token"]),
                    Form::People => {
                        note(&format!("The token, a secret, is in {}.", file.display()));
                        Ok(())
                    }
                }
            }
            (None, Form::Json) => {
                made.0["secret"] = Value::String(secret.to_string());
                say_json(&made.0)
            }
            (None, Form::People) => {
                say(&Zeroizing::new(format!("{}\n", *secret)))?;
                note("This is a secret, and is shown this once.");
                Ok(())
            }
        }
    }
}

fn unwritable(file: &Path, error: &std::io::Error) -> RunError {
    RunError::Failed(format!("cannot write the token to {}: {error}", file.display()))
}

/// Makes one for agents.
pub(crate) async fn create(
    api: &mut Api,
    new: &NewEnrolmentToken,
    to: SecretTo<'_>,
) -> Result<Finish, RunError> {
    to.check()?;
    to.give(Secretive(api.post("enrolment-tokens", Some(new)).await?))?;
    Ok(Finish::Complete)
}

/// Shows those for agents.
pub(crate) async fn list(api: &mut Api, listing: Listing) -> Result<Finish, RunError> {
    let head = ["NAME", "ID", "USES LEFT", "APPROVES", "GROUP", "EXPIRES", "REVOKED"];
    show_list(api, "enrolment-tokens", &[], listing, &head, |token: &EnrolmentToken| {
        vec![
            token.name.to_string(),
            token.id.to_string(),
            token.uses_left.to_string(),
            yes(token.approve),
            token.group.as_ref().map(ToString::to_string).unwrap_or_default(),
            time(token.expires_ms),
            time_if(token.revoked_ms),
        ]
    })
    .await
}

/// Revokes one for agents.
pub(crate) async fn revoke(api: &mut Api, token: &str) -> Result<Finish, RunError> {
    revoke_of(api, ENROLMENT, token).await
}

/// Makes one of the API. A token may not: whoever has logged in proves it anew.
pub(crate) async fn create_api(
    new: &NewApiToken,
    from: PasswordFrom,
    to: SecretTo<'_>,
) -> Result<Finish, RunError> {
    to.check()?;
    let mut api = with_session(from).await?;
    let made = api.post("tokens", Some(new)).await.map(Secretive);
    end_session(api).await;
    to.give(made?)?;
    Ok(Finish::Complete)
}

/// Shows those of the API.
pub(crate) async fn list_api(api: &mut Api, listing: Listing) -> Result<Finish, RunError> {
    let head = ["NAME", "ID", "ROLE", "USER", "EXPIRES", "USED", "REVOKED"];
    show_list(api, "tokens", &[], listing, &head, |token: &ApiToken| {
        vec![
            token.name.to_string(),
            token.id.to_string(),
            token.role.to_string(),
            token.user_id.to_string(),
            time(token.expires_ms),
            time_if(token.used_ms),
            time_if(token.revoked_ms),
        ]
    })
    .await
}

/// Revokes one of the API.
pub(crate) async fn revoke_api(api: &mut Api, token: &str) -> Result<Finish, RunError> {
    revoke_of(api, API, token).await
}

/// Revokes the one of the name, or id, that still holds: those before it may have had the same name.
async fn revoke_of(api: &mut Api, kind: Kind, token: &str) -> Result<Finish, RunError> {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let holds = |token: &Value| {
        token["revoked_ms"].is_null() && token["expires_ms"].as_i64().is_none_or(|end| end > now_ms)
    };
    let found = api.find_where(kind, token, holds).await?;
    api.delete(&format!("{}/{}", kind.path, id_of(&found)?)).await?;
    note("It is revoked.");
    Ok(Finish::Complete)
}
