//! People and programs that use the API: roles, accounts, logins, tokens.

use super::name::Name;
use super::words;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What somebody may do. Each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees everything that is not secret.
    Viewer,
    /// Also makes and runs jobs, and approves agents.
    Operator,
    /// Also manages users, tokens and settings.
    Administrator,
}
words!(Role { Viewer = "viewer", Operator = "operator", Administrator = "administrator" });

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// UUIDv7.
    pub id: Uuid,
    /// By which the user logs in.
    pub name: Name,
    /// What the user may do.
    pub role: Role,
    /// A disabled account has no sessions, and its tokens are refused.
    pub disabled: bool,
    /// Goes up with every change; the `ETag`.
    pub version: i64,
    /// When it was made.
    pub created_ms: i64,
    /// When it was last changed.
    pub updated_ms: i64,
}

/// An account to be made.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// By which the user will log in.
    pub name: Name,
    /// What the user will be allowed to do.
    pub role: Role,
    /// At least 12 characters.
    #[schema(min_length = 12, max_length = 1024, format = Password)]
    pub password: String,
}

/// What to change of an account; what is absent stays.
#[derive(Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserPatch {
    /// Another role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Whether the account is to be disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Another password; ends the user's sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 12, max_length = 1024, format = Password)]
    pub password: Option<String>,
}

/// Somebody's own password, to be changed.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The one that holds now.
    #[schema(max_length = 1024, format = Password)]
    pub current: String,
    /// The one that shall hold.
    #[schema(min_length = 12, max_length = 1024, format = Password)]
    pub new: String,
}

/// A name and a password, for a session.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user's name; any text, so that a wrong one is answered like a wrong password.
    #[schema(max_length = 256)]
    pub name: String,
    /// The user's password.
    #[schema(max_length = 1024, format = Password)]
    pub password: String,
}

/// A session that was begun; its cookie comes beside it.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
pub struct LoginAnswer {
    /// Who has logged in.
    pub user: User,
    /// To be sent in `X-CSRF-Token` with every request that changes something.
    pub csrf_token: String,
    /// When the session ends at the latest.
    pub expires_ms: i64,
}

/// A token for programs, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiToken {
    /// UUIDv7.
    pub id: Uuid,
    /// What it is for.
    pub name: Name,
    /// Whose it is.
    pub user_id: Uuid,
    /// What it allows at most; never more than its user may do.
    pub role: Role,
    /// When it was made.
    pub created_ms: i64,
    /// When it ceases to hold.
    pub expires_ms: i64,
    /// When it was last used, to about a minute.
    pub used_ms: Option<i64>,
    /// When it was revoked.
    pub revoked_ms: Option<i64>,
}

/// A token to be made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiToken {
    /// What it is for.
    pub name: Name,
    /// What it allows at most.
    pub role: Role,
    /// For how long it holds.
    #[schema(minimum = 1, maximum = 63_158_400)]
    pub expires_in_seconds: u32,
}

/// A token that was just made, with its secret: shown this once.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
pub struct NewApiTokenSecret {
    /// What is known of it later.
    pub token: ApiToken,
    /// To be sent as `Authorization: Bearer …`.
    pub secret: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_by_what_they_allow() {
        assert!(Role::Viewer < Role::Operator && Role::Operator < Role::Administrator);
    }
}
