// Copyright © 2026 The virtio-gpu-s3 authors
// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The rules for a commit message, Cloud Hypervisor's, which are the strictest of the projects that there are series
//! for; and ours: the trailers are left to the one who sends it.

use thiserror::Error;

/// The widest title and body line, in characters.
const COLUMNS: usize = 72;
/// The folders at the root of a file system that hold what is somebody's own.
const HOMES: [&str; 3] = ["home", "root", "Users"];
/// Where the containers of Cloud Hypervisor's tests keep their files, which is nobody's home.
const CONTAINER: [&str; 2] = ["root", "workloads"];

/// What is wrong with a message.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MessageFault {
    /// The title has no component.
    #[error("the title is not `component[, component]: summary`: {title:?}")]
    NoComponent {
        /// The title.
        title: String,
    },
    /// The title is too wide or ends in a full stop.
    #[error("the title has {columns} columns; {COLUMNS} are the limit")]
    LongTitle {
        /// Its width.
        columns: usize,
    },
    /// A title is not a sentence.
    #[error("the title ends in a full stop")]
    FullStop,
    /// There is no why and how.
    #[error("there is no body that says why and how")]
    NoBody,
    /// A line of the body is too wide.
    #[error("line {line} of the body has {columns} columns; {COLUMNS} are the limit")]
    LongLine {
        /// Which, from 1.
        line: usize,
        /// Its width.
        columns: usize,
    },
    /// A trailer that names somebody.
    #[error("line {line} of the body is a trailer, which the sender adds: {trailer:?}")]
    Trailer {
        /// Which, from 1.
        line: usize,
        /// What it is.
        trailer: String,
    },
    /// An address.
    #[error("line {line} of the body has a mail address")]
    Address {
        /// Which, from 1.
        line: usize,
    },
    /// A path of somebody's machine.
    #[error("line {line} of the body has a path of somebody's machine")]
    MachinePath {
        /// Which, from 1.
        line: usize,
    },
    /// Characters that no message needs.
    #[error("the message has a control character, or blanks at the end of a line")]
    Untidy,
}

/// Everything that is wrong with a message.
#[must_use]
pub fn lint(title: &str, body: &str) -> Vec<MessageFault> {
    let mut faults = Vec::new();
    if components(title).is_none() {
        faults.push(MessageFault::NoComponent {
            title: title.to_owned(),
        });
    }
    let columns = title.chars().count();
    if columns > COLUMNS {
        faults.push(MessageFault::LongTitle { columns });
    }
    if title.ends_with('.') {
        faults.push(MessageFault::FullStop);
    }
    if body.trim().is_empty() {
        faults.push(MessageFault::NoBody);
    }
    let untidy = |line: &str| {
        line.trim_end() != line || line.contains(|c: char| c.is_control() && c != '\t')
    };
    if untidy(title) || body.split('\n').any(untidy) {
        faults.push(MessageFault::Untidy);
    }
    lint_body(body, &mut faults);
    faults
}

/// The components that a title begins with, or `None` if it begins with none.
#[must_use]
pub fn components(title: &str) -> Option<Vec<&str>> {
    let (prefix, summary) = title.split_once(": ")?;
    let names: Vec<&str> = prefix.split(", ").collect();
    let plain = |name: &&str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'))
    };
    (names.iter().all(plain) && !summary.trim().is_empty()).then_some(names)
}

/// Takes the trailers of a sender away from the end of a body, and gives back how many.
pub fn strip_sender(body: &mut String) -> usize {
    let mut stripped = 0_usize;
    loop {
        body.truncate(body.trim_end().len());
        let (start, last) = body.rsplit_once('\n').unwrap_or(("", body.as_str()));
        if !["Signed-off-by: ", "Assisted-by: "]
            .iter()
            .any(|key| last.starts_with(key))
        {
            return stripped;
        }
        *body = start.to_owned();
        stripped = stripped.saturating_add(1);
    }
}

fn lint_body(body: &str, faults: &mut Vec<MessageFault>) {
    let mut code = false;
    for (index, text) in body.split('\n').enumerate() {
        let line = index.saturating_add(1);
        code ^= text.starts_with("```");
        let columns = text.chars().count();
        if columns > COLUMNS && !code && !may_be_wide(text) {
            faults.push(MessageFault::LongLine { line, columns });
        }
        if let Some((key, _)) = text.split_once(": ")
            && key.ends_with("-by")
            && !key.contains(' ')
        {
            faults.push(MessageFault::Trailer {
                line,
                trailer: key.to_owned(),
            });
        }
        if text.split_whitespace().any(is_address) {
            faults.push(MessageFault::Address { line });
        }
        if names_home(text) {
            faults.push(MessageFault::MachinePath { line });
        }
    }
}

/// Whether a text has an absolute path into somebody's home.
pub(crate) fn names_home(text: &str) -> bool {
    let segments: Vec<&str> = text.split('/').collect();
    segments.windows(3).any(|segments| match *segments {
        [before, first, second] => {
            // Otherwise it goes on from a folder, a host or a variable that stands before it.
            let absolute = !before.ends_with(|c: char| {
                c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '}' | ')')
            });
            absolute && HOMES.contains(&first) && [first, second] != CONTAINER
        }
        _ => false,
    })
}

/// Quoted text and links are not wrapped.
fn may_be_wide(text: &str) -> bool {
    let link =
        text.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '[' | ']' | ':' | ' '));
    text.starts_with([' ', '\t'])
        || text.starts_with("Link: ")
        || link.starts_with("https://")
        || link.starts_with("http://")
}

fn is_address(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric());
    word.split_once('@')
        .is_some_and(|(name, domain)| !name.is_empty() && domain.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_in_good_form_passes() {
        let body = "Why, and how, in a few words.\n\n\
             [0]: https://example.com/a/very/long/link/that/nobody/can/wrap/at/72/columns\n\n\
             \x20   and quoted text that is much wider than anything that anybody would want to read";
        assert_eq!(lint("vmm, devices: acpi: Track the sleep state", body), []);
    }

    #[test]
    fn a_title_begins_with_its_components() {
        assert_eq!(components("vmm, pci: Add it"), Some(vec!["vmm", "pci"]));
        for title in [
            "Add it",
            "Vmm: Add it",
            "vmm:Add it",
            "vmm : Add it",
            "vmm: ",
            ", a: b",
        ] {
            assert_eq!(components(title), None, "{title:?}");
        }
    }

    #[test]
    fn each_rule_is_told_by_its_name() {
        let long = format!("vmm: {}", "x".repeat(68));
        assert_eq!(
            lint(&long, "Why."),
            [MessageFault::LongTitle { columns: 73 }]
        );
        assert_eq!(lint("vmm: Do.", "Why."), [MessageFault::FullStop]);
        assert_eq!(lint("vmm: Do", ""), [MessageFault::NoBody]);
        assert_eq!(lint("vmm: Do", "Why. "), [MessageFault::Untidy]);
        let wide = format!("Why.\n{}", "x ".repeat(37).trim_end());
        assert_eq!(
            lint("vmm: Do", &wide),
            [MessageFault::LongLine {
                line: 2,
                columns: 73
            }]
        );
        assert_eq!(
            lint("vmm: Do", "Why.\n\nReviewed-by: Somebody"),
            [MessageFault::Trailer {
                line: 3,
                trailer: "Reviewed-by".to_owned()
            }]
        );
        assert_eq!(
            lint("vmm: Do", "Ask <somebody@example.com>."),
            [MessageFault::Address { line: 1 }]
        );
        let seen = format!("Why.\nSeen in {}.", absolute(&["home", "somebody"]));
        assert_eq!(
            lint("vmm: Do", &seen),
            [MessageFault::MachinePath { line: 2 }]
        );
    }

    /// The path of these names, which stands nowhere in this repository.
    fn absolute(names: &[&str]) -> String {
        names.iter().flat_map(|name| ["/", name]).collect()
    }

    #[test]
    fn only_a_path_from_the_root_into_a_home_is_somebodys() {
        for home in HOMES {
            let path = absolute(&[home, "somebody", "notes.txt"]);
            for (before, told) in [
                ("", true),
                ("see (", true),
                ("PATH=", true),
                ("a:", true),
                ("\"", true),
                ("file://", true),
                ("https://example.com", false),
                ("src", false),
                ("..", false),
                ("~", false),
                ("$BASE", false),
                ("${BASE}", false),
            ] {
                let text = format!("{before}{path}");
                assert_eq!(names_home(&text), told, "{text}");
            }
            assert!(!names_home(&absolute(&[home])), "{home}");
        }
        assert!(!names_home(&absolute(&["var", "home", "x"])));
        assert!(!names_home(&absolute(&["homes", "x"])));
        assert!(!names_home(&absolute(&["root", "workloads", "x"])));
        let both = [absolute(&["tmp", "x"]), absolute(&["root", "x"])].join(" ");
        assert!(names_home(&both));
    }

    #[test]
    fn only_the_trailers_of_the_sender_are_taken_away() {
        let mut body = "Why.\n\nReviewed-by: A\nAssisted-by: B\nSigned-off-by: C\n".to_owned();
        assert_eq!(strip_sender(&mut body), 2);
        assert_eq!(body, "Why.\n\nReviewed-by: A");
        let mut alone = "Signed-off-by: C".to_owned();
        assert_eq!(strip_sender(&mut alone), 1);
        assert_eq!(alone, "");
    }
}
