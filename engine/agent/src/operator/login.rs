//! `sealift login` and `sealift logout`.
//!
//! Owns the order. A password buys a session, the session a token that expires, and the session is ended; the password is
//! kept nowhere. Only then does the token of the login before, if it was of this daemon, cease to hold.

use crate::error::{Finish, RunError};
use crate::managed::with_port;
use crate::operator::api::Api;
use crate::operator::login_file::Login;
use crate::operator::output::{note, time};
use crate::operator::{API_PORT, PasswordFrom, Trust};
use hyper::header::{COOKIE, HeaderName, SET_COOKIE};
use sealift_api::rest::{LoginAnswer, Name, NewApiToken, NewApiTokenSecret, Role};
use sealift_proto::path::escape;
use serde_json::Value;
use zeroize::Zeroizing;

const CSRF: HeaderName = HeaderName::from_static("x-csrf-token");

/// Whom to log in, and where.
pub(crate) struct LoginOptions {
    /// `HOST` or `HOST:PORT`.
    pub(crate) daemon: String,
    /// Whom to believe.
    pub(crate) trust: Trust,
    /// Who logs in.
    pub(crate) user: Name,
    /// Where the password comes from.
    pub(crate) password: PasswordFrom,
    /// What the login allows at most; by default all that the user may do.
    pub(crate) role: Option<Role>,
    /// For how long it holds.
    pub(crate) expires_in_seconds: u32,
}

/// Logs in.
pub(crate) async fn login(options: LoginOptions) -> Result<Finish, RunError> {
    let daemon = with_port(&options.daemon, API_PORT)?;
    let before = Login::load().unwrap_or_default();
    let mut api = Api::anonymous(&daemon, &options.trust)?;
    let (session, csrf) = session(&mut api, &options.user, options.password).await?;
    show_session(&mut api, &session, &csrf)?;
    let kept = keep(&mut api, &options, &daemon).await;
    if kept.is_ok()
        && let Some(before) = before
        && before.authority().ok() == api.authority()
    {
        // It may have expired, or be somebody else's.
        let _ = api.delete(&format!("tokens/{}", before.token_id)).await;
    }
    let _ = api.post_once::<()>("logout", None).await;
    kept.map(|()| Finish::Complete)
}

/// Has the session make a token, and keeps that.
async fn keep(api: &mut Api, options: &LoginOptions, daemon: &str) -> Result<(), RunError> {
    let me = api.get("me").await?;
    let me: sealift_api::rest::User = api.typed(&me)?;
    let new = NewApiToken {
        name: token_name()?,
        role: options.role.unwrap_or(me.role),
        expires_in_seconds: options.expires_in_seconds,
    };
    let made = secret_of(api, &new).await?;
    let authority = api.authority().ok_or_else(|| RunError::Failed("the daemon was not verified".into()))?;
    let login = Login::new(daemon, &authority, me.name.as_str(), &made);
    let stored = login.store();
    if stored.is_err() {
        // Nobody has it: it shall not hold.
        let _ = api.delete(&format!("tokens/{}", login.token_id)).await;
    }
    let file = stored?;
    note(&format!(
        "Logged in to {daemon} as {} ({}) until {}. The token is in {}.",
        login.user,
        login.role,
        time(login.expires_ms),
        escape(file.as_os_str().as_encoded_bytes()),
    ));
    Ok(())
}

/// Makes a token of the API.
pub(super) async fn secret_of(api: &mut Api, new: &NewApiToken) -> Result<NewApiTokenSecret, RunError> {
    let made = Secretive(api.post("tokens", Some(new)).await?);
    api.typed(&made.0)
}

/// Begins a session: its cookie, and what goes with changes.
async fn session(
    api: &mut Api,
    user: &Name,
    from: PasswordFrom,
) -> Result<(Zeroizing<String>, Zeroizing<String>), RunError> {
    // A daemon that is not the right one, or away, is found before anybody types a password.
    api.get("health").await?;
    let login = sealift_api::rest::Login {
        name: user.to_string(),
        password: from.read(&format!("Password of {user} at {}: ", api.daemon()))?.to_string(),
    };
    let login = Wiped(login);
    let answer = api.post_once("login", Some(&login.0)).await?;
    let odd = || RunError::Failed("the daemon's answer to the login makes no sense here".into());
    let cookie = answer.headers.get(SET_COOKIE).and_then(|cookie| cookie.to_str().ok()).ok_or_else(odd)?;
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    let body: LoginAnswer = serde_json::from_slice(&answer.body).map_err(|_| odd())?;
    Ok((Zeroizing::new(cookie), Zeroizing::new(body.csrf_token)))
}

fn show_session(api: &mut Api, cookie: &str, csrf: &str) -> Result<(), RunError> {
    api.show(COOKIE, cookie)?;
    api.show(CSRF, csrf)
}

/// A session of whoever has logged in, for what a token may not do. The password is asked for.
pub(super) async fn with_session(from: PasswordFrom) -> Result<Api, RunError> {
    let login = Login::load()?
        .ok_or_else(|| RunError::Usage("nobody has logged in here: use `sealift login`".into()))?;
    let mut api = Api::anonymous(&login.daemon, &Trust::Authority(login.authority()?))?;
    let user = login.user.parse().map_err(|_| RunError::Failed("the login's user has no name".into()))?;
    let (cookie, csrf) = session(&mut api, &user, from).await?;
    show_session(&mut api, &cookie, &csrf)?;
    Ok(api)
}

/// Ends such a session.
pub(super) async fn end_session(mut api: Api) {
    let _ = api.post_once::<()>("logout", None).await;
}

/// Logs out: the token ceases to hold, and is forgotten.
pub(crate) async fn logout(forget: bool) -> Result<Finish, RunError> {
    if forget {
        Login::remove()?;
        return Ok(Finish::Complete);
    }
    let Some(login) = Login::load()? else {
        note("Nobody has logged in here.");
        return Ok(Finish::Complete);
    };
    let revoked = match Api::of_login(&login) {
        Ok(mut api) => api.delete(&format!("tokens/{}", login.token_id)).await,
        Err(error) => Err(error),
    };
    match revoked {
        Ok(()) => {}
        // It holds no more: this is what was wanted.
        Err(RunError::Barred(_)) => {}
        Err(error) => {
            note(
                "The token was not revoked, and is kept. `sealift logout --forget` forgets it all the same.",
            );
            return Err(error);
        }
    }
    Login::remove()?;
    note(&format!("Logged out of {}.", escape(login.daemon.as_bytes())));
    Ok(Finish::Complete)
}

/// `cli.HOST.RANDOM`: tokens of a user have names of their own.
fn token_name() -> Result<Name, RunError> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|error| RunError::Failed(format!("the system gives no random bytes: {error}")))?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().to_ascii_lowercase();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    let host = host.trim_matches('-');
    let random = data_encoding::HEXLOWER.encode(&random);
    let name = if host.is_empty() { format!("cli.{random}") } else { format!("cli.{host}.{random}") };
    name.parse().map_err(|error| RunError::Failed(format!("{name}: {error}")))
}

/// A login whose password is wiped.
struct Wiped(sealift_api::rest::Login);

impl Drop for Wiped {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0.password);
    }
}

/// An answer whose secret is wiped.
pub(super) struct Secretive(pub(super) Value);

impl Drop for Secretive {
    fn drop(&mut self) {
        if let Some(Value::String(secret)) = self.0.get_mut("secret") {
            zeroize::Zeroize::zeroize(secret);
        }
    }
}
