//! What is wrong with an entry of a replica: for people, for programs, and for the repair.

use crate::report::Event;
use sealift_proto::block::Layout;
use sealift_proto::digest::RootHash;
use sealift_proto::manifest::Metadata;
use sealift_proto::path::SafePath;
use sealift_proto::time::Timestamp;
use sealift_store::{Existing, LocalStat};
use std::io;

/// An entry that is not what was signed.
pub struct Finding {
    /// Where.
    pub path: SafePath,
    /// What should be there.
    pub wanted: Wanted,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What should be there.
pub enum Wanted {
    /// A file with this content.
    File {
        /// Size and blocks.
        layout: Layout,
        /// The hash of it.
        root: RootHash,
    },
    /// A further name of a file.
    Hardlink {
        /// The file's first name.
        target: SafePath,
        /// Whether it was put here as a file of its own.
        copied: bool,
    },
    /// A directory.
    Directory(Metadata),
    /// A symbolic link.
    Symlink {
        /// Time of the link itself.
        mtime: Timestamp,
        /// Where it points.
        target: Vec<u8>,
    },
}

/// What is wrong.
pub enum Wrong {
    /// Nothing is there.
    Missing,
    /// Something else is there.
    Kind(&'static str),
    /// Other content.
    Content(Content),
    /// A symbolic link points elsewhere.
    Target,
    /// It is a file of its own, not that of the first name.
    Names,
    /// It may be right: nobody can tell.
    Hidden(io::Error),
}

/// Content that is not what was signed.
pub struct Content {
    /// How it came to be so.
    pub cause: Cause,
    /// Blocks that are not what was signed, ascending; those that cannot be read are among them.
    pub blocks: Vec<u32>,
    /// Blocks that cannot be read.
    pub unreadable: Vec<u32>,
    /// Whether the blocks are not known: the file is of another version than the manifest, which has no hashes of its
    /// blocks.
    pub blocks_unknown: bool,
    /// Bytes of all of that.
    pub bytes: u64,
    /// The inode as it was looked at.
    pub seen: Option<LocalStat>,
    /// What reading it failed of.
    pub error: Option<String>,
}

/// How content came to be other than it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nobody edited the file: inode, size and time are as they were.
    Corrupt,
    /// Somebody edited or replaced the file.
    Edited,
}

impl Wrong {
    /// What is there instead of what should be.
    pub fn kind(existing: &Existing) -> Self {
        Self::Kind(match existing {
            Existing::Missing => return Self::Missing,
            Existing::File(_) => "a file",
            Existing::Symlink { .. } => "a symbolic link",
            Existing::Directory { .. } => "a directory",
            Existing::Other => "a device, FIFO or socket",
        })
    }
}

impl Content {
    /// Whether all that is wrong is that it cannot be read.
    fn is_unreadable(&self) -> bool {
        !self.unreadable.is_empty() && self.unreadable.len() == self.blocks.len()
    }
}

impl Finding {
    /// Blocks that are wrong.
    pub fn blocks(&self) -> usize {
        match &self.wrong {
            Wrong::Content(content) => content.blocks.len(),
            _ => 0,
        }
    }

    /// Bytes of content that are to be put right.
    pub fn bytes(&self) -> u64 {
        match (&self.wrong, &self.wanted) {
            (Wrong::Content(content), _) => content.bytes,
            (Wrong::Missing | Wrong::Kind(_), Wanted::File { layout, .. }) => layout.size_bytes(),
            _ => 0,
        }
    }

    /// Tells it.
    pub fn tell(&self, tell: impl FnOnce(&Event<'_>)) {
        let (blocks, unreadable) = match &self.wrong {
            Wrong::Content(content) => (&*content.blocks, &*content.unreadable),
            _ => (&[][..], &[][..]),
        };
        tell(&Event::Damaged {
            path: self.path.to_string(),
            what: self.what(),
            blocks,
            unreadable,
            bytes: self.bytes(),
            reason: self.reason(),
        });
    }

    fn what(&self) -> &'static str {
        match &self.wrong {
            Wrong::Missing => "missing",
            Wrong::Kind(_) => "kind",
            Wrong::Content(content) if content.cause == Cause::Edited => "edited",
            Wrong::Content(content) if content.is_unreadable() => "unreadable",
            Wrong::Content(_) => "corrupt",
            Wrong::Target => "target",
            Wrong::Names => "names",
            Wrong::Hidden(_) => "hidden",
        }
    }

    /// What is wrong, for people.
    pub fn reason(&self) -> String {
        match &self.wrong {
            Wrong::Missing => "is missing".to_owned(),
            Wrong::Kind(what) => {
                let wanted = match self.wanted {
                    Wanted::File { .. } | Wanted::Hardlink { .. } => "a file",
                    Wanted::Directory(_) => "a directory",
                    Wanted::Symlink { .. } => "a symbolic link",
                };
                format!("is {what}, not {wanted}")
            }
            Wrong::Content(content) => self.reason_of_content(content),
            Wrong::Target => "points elsewhere than it should".to_owned(),
            Wrong::Names => match &self.wanted {
                Wanted::Hardlink { target, .. } => format!("is no longer the same file as {target}"),
                _ => "is no longer the same file".to_owned(),
            },
            Wrong::Hidden(error) => format!("cannot be looked at: {error}"),
        }
    }

    fn reason_of_content(&self, content: &Content) -> String {
        let wanted_bytes = match &self.wanted {
            Wanted::File { layout, .. } => Some(layout.size_bytes()),
            _ => None,
        };
        let cause = match content.cause {
            _ if content.is_unreadable() => String::new(),
            Cause::Corrupt => "silently corrupt (nobody edited it): ".to_owned(),
            Cause::Edited => "edited here: ".to_owned(),
        };
        let mut parts = Vec::new();
        if let (Some(seen), Some(wanted)) = (&content.seen, wanted_bytes)
            && seen.size_bytes != wanted
        {
            parts.push(format!("it has {} bytes, not {wanted}", seen.size_bytes));
        }
        let wrong: Vec<u32> = match content.unreadable.is_empty() {
            true => content.blocks.clone(),
            false => content
                .blocks
                .iter()
                .filter(|block| content.unreadable.binary_search(block).is_err())
                .copied()
                .collect(),
        };
        if content.blocks_unknown {
            parts.push("its content is not what was put here last".to_owned());
        }
        if !wrong.is_empty() {
            parts.push(format!("{} not what was signed", blocks_are(&wrong)));
        }
        if !content.unreadable.is_empty() {
            parts.push(format!("{} not readable", blocks_are(&content.unreadable)));
        }
        if let Some(error) = &content.error {
            parts.push(error.clone());
        }
        if parts.is_empty() {
            parts.push("its content is not what was signed".to_owned());
        }
        format!("{cause}{}", parts.join("; "))
    }
}

/// As in "blocks 3, 7-9 are".
fn blocks_are(blocks: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &block in blocks {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == block => *last = block,
            _ => ranges.push((block, block)),
        }
    }
    let shown: Vec<String> = ranges
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    let (noun, verb) = if blocks.len() == 1 { ("block", "is") } else { ("blocks", "are") };
    format!("{noun} {} {verb}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sealift_proto::block::BlockSize;

    #[test]
    fn blocks_are_told_as_ranges() {
        assert_eq!(blocks_are(&[3]), "block 3 is");
        assert_eq!(blocks_are(&[0, 1, 2, 7, 9, 10]), "blocks 0-2, 7, 9-10 are");
    }

    #[test]
    fn b15_a_finding_says_what_is_wrong_and_how_it_came_to_be() {
        let layout = Layout::new(100_000, BlockSize::MIN).unwrap();
        let finding = |cause, blocks: &[u32], unreadable: &[u32]| Finding {
            path: SafePath::parse(b"a/b").unwrap(),
            wanted: Wanted::File { layout, root: RootHash([0; 32]) },
            wrong: Wrong::Content(Content {
                cause,
                blocks: blocks.to_vec(),
                unreadable: unreadable.to_vec(),
                blocks_unknown: false,
                bytes: 32_768,
                seen: None,
                error: None,
            }),
        };
        let said = |finding: Finding| (finding.what(), finding.reason());
        let (what, reason) = said(finding(Cause::Corrupt, &[1], &[]));
        assert_eq!(what, "corrupt");
        assert_eq!(reason, "silently corrupt (nobody edited it): block 1 is not what was signed");
        assert_eq!(said(finding(Cause::Edited, &[0, 1], &[])).0, "edited");
        let (what, reason) = said(finding(Cause::Corrupt, &[2], &[2]));
        assert_eq!((what, &*reason), ("unreadable", "block 2 is not readable"));
        let (what, reason) = said(finding(Cause::Corrupt, &[1, 2], &[2]));
        assert_eq!(what, "corrupt");
        assert!(reason.ends_with("block 1 is not what was signed; block 2 is not readable"), "{reason}");
    }
}
