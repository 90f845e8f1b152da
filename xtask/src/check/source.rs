//! A Rust file split into its code and its comments, so that rules cannot be fooled by either.

/// Both texts have the file's lines and columns; what is not theirs is blank.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path from the repository's top.
    pub(crate) path: String,
    /// Code without comments and without the content of literals.
    pub(crate) code: String,
    /// Comments alone.
    pub(crate) comments: String,
}

impl Source {
    /// Splits `text`.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let mut split = Split { rest: text.chars().collect(), at: 0, code: String::new(), comments: String::new() };
        while split.at < split.rest.len() {
            split.step();
        }
        Self { path: path.to_owned(), code: split.code, comments: split.comments }
    }

    /// Lines of the file.
    pub(crate) fn lines(&self) -> usize {
        self.code.lines().count()
    }

    /// Line number (from 1) of a byte of `code`.
    pub(crate) fn line_of(&self, offset: usize) -> usize {
        self.code[..offset].matches('\n').count() + 1
    }

    /// Byte offsets in `code` where `needle` stands with no identifier character on either side.
    pub(crate) fn words<'a>(&'a self, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
        let identifier = |c: char| c.is_alphanumeric() || c == '_';
        self.code.match_indices(needle).map(|(offset, _)| offset).filter(move |&offset| {
            let before = self.code[..offset].chars().next_back();
            let after = self.code[offset + needle.len()..].chars().next();
            let starts = needle.starts_with(identifier);
            let ends = needle.ends_with(identifier);
            !(starts && before.is_some_and(identifier) || ends && after.is_some_and(identifier))
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

struct Split {
    rest: Vec<char>,
    at: usize,
    code: String,
    comments: String,
}

impl Split {
    fn peek(&self, ahead: usize) -> char {
        self.rest.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn take(&mut self, count: usize, kind: Kind) {
        for _ in 0..count {
            let Some(&c) = self.rest.get(self.at) else { return };
            self.at += 1;
            let blank: String = if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) };
            self.code.push_str(&if kind == Kind::Code { c.to_string() } else { blank.clone() });
            self.comments.push_str(&if kind == Kind::Comment { c.to_string() } else { blank });
        }
    }

    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => self.line_comment(),
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(),
            ('\'', _) => self.quote(),
            (c, _) if c.is_alphanumeric() || c == '_' => self.word(),
            _ => self.take(1, Kind::Code),
        }
    }

    fn line_comment(&mut self) {
        while self.at < self.rest.len() && self.peek(0) != '\n' {
            self.take(1, Kind::Comment);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.rest.len() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ => {
                    self.take(1, Kind::Comment);
                    continue;
                }
            }
            self.take(2, Kind::Comment);
            if depth == 0 {
                return;
            }
        }
    }

    /// An identifier, or the prefix of a raw string.
    fn word(&mut self) {
        let start = self.at;
        while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
            self.take(1, Kind::Code);
        }
        let word: String = self.rest[start..self.at].iter().collect();
        if !["r", "br", "cr"].contains(&word.as_str()) {
            return;
        }
        let hashes = (0..).take_while(|&ahead| self.peek(ahead) == '#').count();
        if self.peek(hashes) == '"' {
            self.take(hashes, Kind::Code);
            self.raw_string(hashes);
        }
    }

    fn string(&mut self) {
        self.take(1, Kind::Code);
        while self.at < self.rest.len() && self.peek(0) != '"' {
            let width = if self.peek(0) == '\\' { 2 } else { 1 };
            self.take(width, Kind::Literal);
        }
        self.take(1, Kind::Code);
    }

    fn raw_string(&mut self, hashes: usize) {
        self.take(1, Kind::Code);
        let closes = |split: &Self| split.peek(0) == '"' && (1..=hashes).all(|ahead| split.peek(ahead) == '#');
        while self.at < self.rest.len() && !closes(self) {
            self.take(1, Kind::Literal);
        }
        self.take(1 + hashes, Kind::Code);
    }

    /// A character literal, or a lifetime.
    fn quote(&mut self) {
        if self.peek(1) == '\\' {
            self.take(1, Kind::Code);
            self.take(2, Kind::Literal);
            while self.at < self.rest.len() && self.peek(0) != '\'' {
                self.take(1, Kind::Literal);
            }
            self.take(1, Kind::Code);
        } else if self.peek(2) == '\'' {
            self.take(1, Kind::Code);
            self.take(1, Kind::Literal);
            self.take(1, Kind::Code);
        } else {
            self.take(1, Kind::Code);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_no_code() {
        let cases = [
            ("a // fn b", "a        ", "  // fn b"),
            ("a /* x /* y */ */ b", "a                 b", "  /* x /* y */ */  "),
            (r#"f("fn // \" x") g"#, r#"f("          ") g"#, ""),
            (r##"r#"fn " x"# g"##, r##"r#"      "# g"##, ""),
            ("b'{' '\\'' 'a: T", "b' ' '  ' 'a: T", ""),
            ("x<'a>('}')", "x<'a>(' ')", ""),
        ];
        for (text, code, comments) in cases {
            let source = Source::new("x.rs", text);
            assert_eq!(source.code.trim_end(), code.trim_end(), "{text}");
            assert_eq!(source.comments.trim_end(), comments.trim_end(), "{text}");
        }
    }

    #[test]
    fn words_are_whole() {
        let source = Source::new("x.rs", "aya::maps; my_aya::maps; aya_ebpf::x; (aya::Ebpf)");
        assert_eq!(source.words("aya::").count(), 2);
        assert_eq!(source.words("aya").count(), 2);
    }

    #[test]
    fn lines_are_kept() {
        let source = Source::new("x.rs", "/*\n\n*/ \"a\nb\" c\n");
        assert_eq!(source.lines(), 4);
        assert_eq!(source.code.find('c').map(|at| source.line_of(at)), Some(4));
    }
}
