//! The API's description: what handlers say of themselves, and what is true of all of them.
//!
//! Which problems a route may answer with follows from what it takes and from its rule; that is told here once, for each
//! route in full, so that no answer is left out of the description.

use super::access::{Access, COOKIE, CSRF_HEADER, RULES};
use super::once::{KEY_BYTES_MAX, KEY_HEADER};
use serde_json::{Map, Value, json};

/// Answers whose version is their `ETag`.
const VERSIONED: [&str; 7] = ["Agent", "Job", "Kek", "Run", "RunDetail", "Settings", "User"];

/// Completes the description that handlers give.
pub(super) fn complete(api: &mut Value) {
    api["components"]["securitySchemes"] = json!({
        "token": { "type": "http", "scheme": "bearer", "description": "A token of the API." },
        "session": {
            "type": "apiKey", "in": "cookie", "name": COOKIE,
            "description": format!("A session; a change by one needs its other half in `{CSRF_HEADER}`."),
        },
    });
    for (method, path, access) in RULES {
        let operation = &mut api["paths"][*path][method.to_ascii_lowercase()];
        if let Some(operation) = operation.as_object_mut() {
            complete_operation(operation, method, path, *access);
        }
    }
}

fn complete_operation(operation: &mut Map<String, Value>, method: &str, path: &str, access: Access) {
    operation.insert("operationId".into(), operation_id(method, path).into());
    let is_open = access == Access::Open;
    let takes_no_key =
        ["/logout", "/password", "/logs/open", "/rewrap"].iter().any(|end| path.ends_with(end));
    let has_key = method == "POST" && !is_open && !takes_no_key;
    let has_version = method == "PATCH" || (method == "DELETE" && !path.contains("tokens"));
    let mut parameters = operation.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
    if has_key {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "description": format!("With the same `{KEY_HEADER}`, the same request of a user is carried out once in \
                a day: after that it is answered as it was."),
            "schema": { "type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX, "pattern": "^[!-~]+$" },
        }));
    }
    if has_version {
        parameters.push(json!({
            "name": "If-Match", "in": "header", "required": false,
            "description": "The `ETag` of the version that the change is meant for.",
            "schema": { "type": "string" },
        }));
    }
    let has_query = parameters.iter().any(|parameter| parameter["in"] == "query");
    let has_header = parameters.iter().any(|parameter| parameter["in"] == "header");
    let has_cursor = parameters.iter().any(|parameter| parameter["name"] == "after");
    let has_body = operation.contains_key("requestBody");
    let is_change = method != "GET";
    let is_limited = ["/login", "/stream", "/logs/open"].iter().any(|end| path.ends_with(end));
    if !parameters.is_empty() {
        operation.insert("parameters".into(), parameters.into());
    }
    if !is_open {
        operation.insert("security".into(), json!([{ "token": [] }, { "session": [] }]));
    }
    let problems = [
        (has_query || has_header || has_body, "400", "What was sent cannot be read."),
        (!is_open || path.ends_with("/login"), "401", "Nobody is logged in, or the login is wrong."),
        (!is_open, "403", "This is not allowed to whoever asks."),
        (path.contains('{'), "404", "There is nothing with this id."),
        (is_change, "409", "It does not fit to how things are, or is being done already."),
        (has_version, "412", "It was changed meanwhile: its `ETag` is another."),
        (has_body, "413", "The body is too long."),
        (has_body, "415", "The body is not JSON."),
        (has_body || has_cursor || has_key, "422", "What was sent can be read, and makes no sense."),
        (is_limited, "429", "Too often, or too many: `Retry-After` says when to come again."),
        (true, "500", "The daemon could not do it: its log says why."),
        (path.ends_with("/login"), "503", "Too many log in at once: `Retry-After` says when to come again."),
    ];
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    responses.retain(|status, _| !status.ends_with("XX"));
    for (_, response) in responses.iter_mut() {
        let schema = response.pointer("/content/application~1json/schema/$ref").and_then(Value::as_str);
        let name = schema.and_then(|schema| schema.rsplit('/').next()).unwrap_or_default().to_owned();
        if VERSIONED.contains(&name.as_str()) {
            response["headers"]["ETag"] =
                json!({ "description": "The version.", "schema": { "type": "string" }, "required": true });
        }
    }
    for (_, status, why) in problems.into_iter().filter(|(can_be, _, _)| *can_be) {
        let mut response = json!({
            "description": why,
            "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
        });
        if matches!(status, "429" | "503") {
            response["headers"]["Retry-After"] = json!({
                "description": "In seconds.", "schema": { "type": "integer", "minimum": 0 }, "required": true,
            });
        }
        responses.insert(status.to_owned(), response);
    }
}

/// A name that no other operation has: `GET /api/v1/runs/{id}/stream` is `getRunsIdStream`.
fn operation_id(method: &str, path: &str) -> String {
    let mut name = method.to_ascii_lowercase();
    let parts = path.trim_start_matches("/api/v1/").split(|c: char| !c.is_ascii_alphanumeric());
    for part in parts.filter(|part| !part.is_empty()) {
        let (first, rest) = part.split_at(1);
        name.push_str(&first.to_ascii_uppercase());
        name.push_str(rest);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_has_its_own_name_and_says_what_it_may_answer() {
        let api: Value = serde_json::from_str(&crate::rest::description()).unwrap();
        let mut names = BTreeSet::new();
        for (method, path, access) in RULES {
            let operation = &api["paths"][*path][method.to_ascii_lowercase()];
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
            assert!(responses.contains_key("500") && !responses.contains_key("4XX"), "{method} {path}");
            assert_eq!(responses.contains_key("403"), *access != Access::Open, "{method} {path}");
            assert_eq!(responses.contains_key("404"), path.contains('{'), "{method} {path}");
        }
        let headers = &api["paths"]["/api/v1/jobs/{id}"]["get"]["responses"]["200"]["headers"];
        assert!(headers["ETag"].is_object(), "{headers}");
    }
}
