//! `sealift user`: who may use the API, and how.

use crate::error::{Finish, RunError};
use crate::operator::api::Kind;
use crate::operator::output::{Form, Listing, note, show_list, show_one, time, yes};
use crate::operator::{Api, PasswordFrom};
use sealift_api::rest::{Name, NewUser, Role, User, UserPatch};
use zeroize::Zeroize as _;

const USER: Kind = Kind { path: "users", one: "user", list: "sealift user list" };

/// Shows them.
pub(crate) async fn list(api: &mut Api, listing: Listing) -> Result<Finish, RunError> {
    let head = ["NAME", "ID", "ROLE", "DISABLED", "CREATED"];
    show_list(api, "users", &[], listing, &head, |user: &User| {
        vec![
            user.name.to_string(),
            user.id.to_string(),
            user.role.to_string(),
            yes(user.disabled),
            time(user.created_ms),
        ]
    })
    .await
}

/// Adds one.
pub(crate) async fn create(
    api: &mut Api,
    name: Name,
    role: Role,
    from: PasswordFrom,
    form: Form,
) -> Result<Finish, RunError> {
    let password = from.read_new(&format!("Password for {name}: "))?;
    let mut new = NewUser { name, role, password: password.to_string() };
    let made = api.post("users", Some(&new)).await;
    new.password.zeroize();
    show_one(api, &made?, form, people)
}

/// Changes one.
pub(crate) async fn set(
    api: &mut Api,
    user: &str,
    mut patch: UserPatch,
    password: Option<PasswordFrom>,
    form: Form,
) -> Result<Finish, RunError> {
    let found = api.find(USER, user).await?;
    let user: User = api.typed(&found)?;
    if let Some(from) = password {
        let password = from.read_new(&format!("New password for {}: ", user.name))?;
        patch.password = Some(password.to_string());
    }
    let changed = api.patch(&format!("users/{}", user.id), user.version, &patch).await;
    patch.password.zeroize();
    show_one(api, &changed?, form, people)
}

/// Removes one.
pub(crate) async fn delete(api: &mut Api, user: &str) -> Result<Finish, RunError> {
    let found = api.find(USER, user).await?;
    let user: User = api.typed(&found)?;
    api.delete(&format!("users/{}", user.id)).await?;
    note(&format!("{} is removed.", user.name));
    Ok(Finish::Complete)
}

fn people(user: &User) -> String {
    let disabled = if user.disabled { ", disabled" } else { "" };
    format!("{} ({}{disabled}) {}\n", user.name, user.role, user.id)
}
