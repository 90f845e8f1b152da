//! Small rooms: no file over 500 lines, no function of 60 lines or more.

use super::Violation;
use super::source::Source;

const FILE: usize = 500;
const FUNCTION: usize = 60;

pub(super) fn check(source: &Source) -> Vec<Violation> {
    let mut violations = Vec::new();
    let lines = source.lines();
    if lines > FILE {
        let message = format!("{lines} lines; {FILE} at most: give one of its nouns a file of its own");
        violations.push(Violation::new(&source.path, 1, message));
    }
    for function in functions(source) {
        if function.lines >= FUNCTION {
            let message =
                format!("fn {} has {} lines; fewer than {FUNCTION}: name its parts", function.name, function.lines);
            violations.push(Violation::new(&source.path, function.line, message));
        }
    }
    violations
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Functions with a body, from the `fn` to the closing brace.
fn functions(source: &Source) -> Vec<Function> {
    source.words("fn").filter_map(|start| function(source, start)).collect()
}

fn function(source: &Source, start: usize) -> Option<Function> {
    let signature = source.code[start + "fn".len()..].trim_start();
    let name: String = signature.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() {
        // A type such as `fn(u8)`.
        return None;
    }
    let end = body_end(&source.code[start..])? + start;
    let line = source.line_of(start);
    Some(Function { name, line, lines: source.line_of(end) - line + 1 })
}

/// Where the first braces outside parentheses and brackets close; `None` for a declaration.
fn body_end(code: &str) -> Option<usize> {
    let (mut round, mut curly) = (0_i32, 0_i32);
    for (offset, c) in code.char_indices() {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            ';' if round == 0 && curly == 0 => return None,
            '{' => curly += 1,
            '}' => {
                curly -= 1;
                if curly == 0 {
                    return Some(offset);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violations(text: &str) -> Vec<(usize, String)> {
        let found = check(&Source::new("x.rs", text));
        found.into_iter().map(|violation| (violation.line, violation.message)).collect()
    }

    #[test]
    fn a_function_of_sixty_lines_is_too_long() {
        let long = format!("\nfn long(a: [u8; 4]) {{\n{}}}\n", "    a();\n".repeat(58));
        let found = violations(&long);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, 2);
        assert!(found[0].1.contains("fn long has 60 lines"), "{found:?}");
    }

    #[test]
    fn a_function_of_fifty_nine_lines_and_braces_in_strings_pass() {
        let just = format!("fn just() {{\n    let a = \"{{\";\n{}}}\n", "    a();\n".repeat(56));
        assert_eq!(violations(&format!("{just}\n{just}")), []);
    }

    #[test]
    fn a_declaration_has_no_body() {
        assert_eq!(violations(&format!("trait A {{\n fn a();\n{} fn b();\n}}\n", "\n".repeat(80))), []);
    }

    #[test]
    fn a_file_over_500_lines_is_too_long() {
        assert_eq!(violations(&"// x\n".repeat(500)), []);
        assert_eq!(violations(&"// x\n".repeat(501)).len(), 1);
    }
}
