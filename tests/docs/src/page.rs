//! A page of docs/, as far as tests look at it.

use std::fs;
use std::path::{Path, PathBuf};

/// The repository, from this crate.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The repository.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(ROOT)
}

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Relative to the repository.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
}

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// The language, and what follows it.
    pub info: Vec<&'a str>,
    /// Its lines.
    pub body: String,
}

impl Page {
    /// Every page of docs/, and the README.
    ///
    /// # Panics
    /// When they cannot be read.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut pages = vec![Self::read(Path::new("README.md"))];
        let mut folders = vec![PathBuf::from("docs")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(root().join(&folder)).unwrap() {
                let path = folder.join(entry.unwrap().file_name());
                if root().join(&path).is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "md") {
                    pages.push(Self::read(&path));
                }
            }
        }
        pages.sort_by(|a, b| a.path.cmp(&b.path));
        pages
    }

    /// One page.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        Self { path: path.to_path_buf(), text: fs::read_to_string(root().join(path)).unwrap() }
    }

    /// The tests that the front matter says hold the page.
    #[must_use]
    pub fn tests(&self) -> Option<Vec<&str>> {
        let matter = self.text.strip_prefix("---\n")?.split_once("\n---\n")?.0;
        let tests = matter.lines().find_map(|line| line.strip_prefix("tests: "))?;
        Some(tests.split(", ").collect())
    }

    /// Its fenced blocks, in order.
    ///
    /// # Panics
    /// When one has no end.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut open: Option<Block<'_>> = None;
        for line in self.text.lines() {
            match (line.strip_prefix("```"), open.as_mut()) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(info), None) => {
                    open = Some(Block { info: info.split_whitespace().collect(), body: String::new() });
                }
                (None, Some(block)) => block.body.extend([line, "\n"]),
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block has no end", self.path.display());
        blocks
    }

    /// What is no block.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut fenced = false;
        self.text.lines().filter(move |line| {
            let fence = line.starts_with("```");
            fenced ^= fence;
            !fence && !fenced && !line.starts_with("    ")
        })
    }

    /// Where its links lead.
    #[must_use]
    pub fn links(&self) -> Vec<&str> {
        let ends = self.prose().flat_map(|line| line.split("](").skip(1));
        ends.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
    }

    /// What a link may name after `#`: headlines, and explicit marks.
    #[must_use]
    pub fn anchors(&self) -> Vec<String> {
        let headlines =
            self.prose().filter(|line| line.starts_with('#')).map(|line| slug(line.trim_start_matches('#')));
        let marks = self.text.split("<a id=\"").skip(1).filter_map(|rest| rest.split_once('"'));
        headlines.chain(marks.map(|(id, _)| id.to_owned())).collect()
    }
}

/// As GitHub makes it of a headline.
fn slug(headline: &str) -> String {
    let kept = headline.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

impl Block<'_> {
    /// Whether it is in this language.
    #[must_use]
    pub fn is(&self, language: &str) -> bool {
        self.info.first() == Some(&language)
    }

    /// Whether this word follows its language.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        self.info.contains(&word)
    }

    /// What the word `NAME=...` says.
    #[must_use]
    pub fn word(&self, name: &str) -> Option<&str> {
        self.info.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// The exit code that is expected of its last command.
    ///
    /// # Panics
    /// When it is no number.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        self.word("exit").map_or(0, |code| code.parse().unwrap())
    }

    /// Its commands, each as words, without comments.
    ///
    /// # Panics
    /// When a quote has no end.
    #[must_use]
    pub fn commands(&self) -> Vec<Vec<String>> {
        let joined = self.body.replace("\\\n", " ");
        joined.lines().map(words).filter(|words| !words.is_empty()).collect()
    }
}

/// Splits a line as a shell does: quotes, and comments at its end.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote has no end: {line}");
    words.extend(word);
    words
}

/// The arguments of this program where a command runs it, here or in a pod (`kubectl exec ... -- mesh-ctl ...`).
#[must_use]
pub fn arguments_of<'a>(program: &str, command: &'a [String]) -> Option<&'a [String]> {
    let place = command.iter().position(|word| word == program)?;
    let first = place == 0 || command[place - 1] == "--";
    let end = command.iter().position(|word| ["|", ">", "&&"].contains(&word.as_str())).unwrap_or(command.len());
    first.then(|| &command[place + 1..end.max(place + 1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        let line = r#"mesh-ctl route -H 'x-beta: 1' http://a/#b "" # a comment"#;
        assert_eq!(words(line), ["mesh-ctl", "route", "-H", "x-beta: 1", "http://a/#b", ""]);
        let inside: Vec<String> = words("kubectl exec pod -- mesh-ctl status | head");
        assert_eq!(arguments_of("mesh-ctl", &inside).unwrap(), ["status"]);
        assert_eq!(arguments_of("mesh-ctl", &words("which mesh-ctl")), None);
    }

    #[test]
    fn blocks_links_and_anchors_are_found() {
        let text = "---\ntests: a.rs, b.rs\n---\n# A page, of *it*\n[x](y.md#z)\n```sh exit=1\nls # c\n```\n<a id=\"M1\"></a>\n";
        let page = Page { path: "p.md".into(), text: text.to_owned() };
        assert_eq!(page.tests().unwrap(), ["a.rs", "b.rs"]);
        assert_eq!(page.links(), ["y.md#z"]);
        assert_eq!(page.anchors(), ["a-page-of-it", "M1"]);
        let blocks = page.blocks();
        assert_eq!((blocks.len(), blocks[0].exit_code()), (1, 1));
        assert_eq!(blocks[0].commands(), [["ls"]]);
    }
}
