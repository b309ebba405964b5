//! What it means that the daemon refuses: its problems (RFC 9457) as messages and exit codes.

use crate::error::RunError;
use crate::operator::http::Answer;
use hyper::StatusCode;
use sealift_api::rest::Problem;
use sealift_proto::path::escape;

/// The error of an answer that is no success.
pub(super) fn refused(daemon: &str, answer: &Answer) -> RunError {
    let status = answer.status;
    let Ok(problem) = serde_json::from_slice::<Problem>(&answer.body) else {
        return RunError::Failed(format!(
            "{daemon} answers with status {status}, and not as a control daemon does: is this its API?"
        ));
    };
    let detail = escape(problem.detail.unwrap_or(problem.title).as_bytes());
    let kind = problem.kind.strip_prefix("/problems/").unwrap_or_default();
    match status {
        StatusCode::UNAUTHORIZED if kind == "login" => RunError::Barred(detail),
        StatusCode::UNAUTHORIZED => RunError::Barred(format!(
            "the control daemon at {daemon} does not take this login: it has expired or was revoked. Log in again with \
            `sealift login`"
        )),
        StatusCode::FORBIDDEN => RunError::Barred(detail),
        StatusCode::TOO_MANY_REQUESTS => {
            let seconds = answer.headers.get(hyper::header::RETRY_AFTER);
            match seconds.and_then(|seconds| seconds.to_str().ok()?.parse::<u64>().ok()) {
                Some(seconds) => RunError::Barred(format!("{detail} In {seconds} s.")),
                None => RunError::Barred(detail),
            }
        }
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => RunError::Usage(detail),
        StatusCode::PRECONDITION_FAILED => RunError::Failed(format!(
            "somebody else has changed it meanwhile: look at it, and try again ({detail})"
        )),
        status if status.is_server_error() => {
            let id = problem.request_id.map(|id| format!(" (request {id})")).unwrap_or_default();
            RunError::Failed(format!("{detail}{id}"))
        }
        _ => RunError::Failed(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn answer(status: u16, kind: &str, detail: &str) -> Answer {
        let problem = Problem {
            kind: format!("/problems/{kind}"),
            title: "Title".into(),
            status,
            detail: Some(detail.into()),
            request_id: None,
        };
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: hyper::HeaderMap::new(),
            body: Zeroizing::new(serde_json::to_vec(&problem).unwrap()),
        }
    }

    #[test]
    fn problems_have_exit_codes() {
        for (status, kind, code) in [
            (401, "login", 4),
            (401, "unauthenticated", 4),
            (403, "role", 4),
            (429, "locked", 4),
            (400, "query", 2),
            (422, "invalid", 2),
            (404, "not-found", 1),
            (409, "conflict", 1),
            (412, "stale", 1),
            (500, "internal", 1),
        ] {
            assert_eq!(refused("d", &answer(status, kind, "x")).code(), code, "{status}");
        }
    }

    #[test]
    fn a20_what_the_daemon_says_cannot_drive_a_terminal() {
        let text = refused("d", &answer(409, "conflict", "a\x1b[2J\u{202e}b")).to_string();
        assert_eq!(text, "a\\x1b[2J\\u{202e}b");
    }

    #[test]
    fn what_is_no_problem_is_no_control_daemon() {
        let mut answer = answer(404, "", "");
        answer.body = Zeroizing::new(b"<html>\x1b[2J".to_vec());
        let error = refused("d:1", &answer);
        assert!(error.code() == 1 && !error.to_string().contains('\x1b'), "{error}");
    }
}
