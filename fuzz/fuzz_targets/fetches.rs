//! A sender's judgement of whatever a receiver asks for: every range is served within its file or refused, what is served is
//! bounded, and who goes on asking is cut off.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sealift_proto::block::{BlockIndex, BlockSize, FileId, Layout};
use sealift_proto::limits::{BLOCKS_PAYLOAD_BYTES_MAX, FETCH_RANGES_MAX, RUN_BYTES_MAX, STRIKES_MAX};
use sealift_proto::transfer::serve::{Answer, Server};
use sealift_proto::wire::{BlocksPrefix, FetchRequest, RangeProblem};

#[derive(Arbitrary, Debug)]
struct Input {
    files: Vec<(u64, u8)>,
    total_bytes: u64,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// Ranges near what exists.
    Near(Vec<(u8, u16, u8)>),
    /// The body of a frame, as it came.
    Raw(Vec<u8>),
    Answered,
}

fuzz_target!(|input: Input| {
    let layouts: Vec<Option<Layout>> = input
        .files
        .iter()
        .map(|(size, log2)| {
            let block_size = BlockSize::from_log2(15 + log2 % 10).expect("in range");
            Layout::new(size >> (log2 % 64), block_size)
        })
        .collect();
    let layout = |file: FileId| layouts.get(usize::try_from(file.0).ok()?).copied().flatten();
    let mut server = Server::new();
    let (mut refused, mut outstanding) = (0, 0);
    for step in input.steps {
        let fetch = match step {
            Step::Answered => {
                server.handle_answered();
                outstanding = usize::saturating_sub(outstanding, 1);
                continue;
            }
            Step::Near(ranges) => FetchRequest {
                ranges: ranges
                    .into_iter()
                    .take(FETCH_RANGES_MAX)
                    .map(|(file, first, count)| BlocksPrefix {
                        file: FileId(file.into()),
                        first: BlockIndex(first.into()),
                        count: count.into(),
                    })
                    .collect(),
            },
            Step::Raw(body) => match FetchRequest::decode(&body) {
                Ok(fetch) => fetch,
                Err(_) => continue,
            },
        };
        let find = |range: &BlocksPrefix| layout(range.file).ok_or(RangeProblem::UnknownFile);
        let found: Vec<_> = fetch.ranges.iter().map(find).collect();
        let Ok(judged) = server.handle_fetch(&fetch, &found, input.total_bytes) else {
            // The connection is closed.
            return;
        };
        outstanding += 1;
        assert!(outstanding <= 32, "unanswered fetches are bounded");
        assert_eq!(judged.answers.len(), fetch.ranges.len());
        let mut payload = 0_usize;
        for (answer, range) in judged.answers.iter().zip(&fetch.ranges) {
            match answer {
                Answer::Refuse(error) => {
                    assert_eq!(error.range, *range);
                    refused += 1;
                }
                Answer::Serve { range: served, bytes } => {
                    assert_eq!(served, range);
                    let of = layout(range.file).expect("only what is offered is served");
                    assert_eq!(of.run_bytes(range.first, range.count), Some(u64::from(*bytes)));
                    payload += *bytes as usize;
                }
            }
        }
        let fits = if fetch.ranges.len() > 1 { RUN_BYTES_MAX } else { BLOCKS_PAYLOAD_BYTES_MAX };
        assert!(payload <= fits, "the answers fit one buffer");
        assert!(refused <= STRIKES_MAX, "who goes on is cut off");
    }
});
