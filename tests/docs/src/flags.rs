//! A program's command line.

use clap::{Arg, ArgAction, Command};

use crate::cell;

/// The page of a program's flags and commands.
#[must_use]
pub fn flags(mut command: Command) -> String {
    command.build();
    let name = command.get_name().to_owned();
    let mut page = format!("<!-- Made by `cargo xtask docs` from the program's arguments. -->\n\n# {name}\n\n");
    describe(&command, &name, &mut page);
    page.trim_end().to_owned() + "\n"
}

/// What one command takes, and then those below it.
fn describe(command: &Command, path: &str, page: &mut String) {
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    page.push_str(&format!("{}\n\n", about.trim()));
    let arguments: Vec<&Arg> = command.get_arguments().filter(|arg| is_told(arg, path)).collect();
    if !arguments.is_empty() {
        page.push_str("| argument | default | environment | meaning |\n|---|---|---|---|\n");
        for argument in arguments {
            page.push_str(&row(argument));
        }
        page.push('\n');
    }
    for below in command.get_subcommands().filter(|below| below.get_name() != "help" && !below.is_hide_set()) {
        let path = format!("{path} {}", below.get_name());
        page.push_str(&format!("## {path}\n\n"));
        let aliases: Vec<String> = below.get_visible_aliases().map(|alias| format!("`{alias}`")).collect();
        if !aliases.is_empty() {
            page.push_str(&format!("Also: {}\n\n", aliases.join(", ")));
        }
        describe(below, &path, page);
    }
}

/// clap's own are everywhere the same, and those of a command above are told there.
fn is_told(argument: &Arg, path: &str) -> bool {
    let own = matches!(
        argument.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    );
    let of_a_command_above = argument.is_global_set() && path.contains(' ');
    !own && !of_a_command_above && !argument.is_hide_set()
}

fn row(argument: &Arg) -> String {
    let takes_value = argument.get_action().takes_values();
    let values: Vec<String> = argument.get_value_names().unwrap_or_default().iter().map(ToString::to_string).collect();
    let value = if values.is_empty() { argument.get_id().as_str().to_uppercase() } else { values.join(" ") };
    let mut forms: Vec<String> = argument.get_short().map(|short| format!("-{short}")).into_iter().collect();
    forms.extend(argument.get_long().map(|long| format!("--{long}")));
    forms.extend(argument.get_visible_aliases().unwrap_or_default().iter().map(|alias| format!("--{alias}")));
    let form = match (argument.is_positional(), takes_value) {
        (true, _) => value,
        (false, true) => format!("{} {value}", forms.join(", ")),
        (false, false) => forms.join(", "),
    };
    let defaults: Vec<String> =
        argument.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    let default = match (argument.is_required_set(), defaults.is_empty()) {
        (true, _) => "required".to_owned(),
        (false, true) => String::new(),
        (false, false) if takes_value => defaults.join(", "),
        (false, false) => String::new(),
    };
    let environment = argument.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
    let help = argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
    format!("| `{}` | {} | {environment} | {}{} |\n", cell(&form), cell(&default), cell(&help), choices(argument))
}

/// The values that it takes, where they are few.
fn choices(argument: &Arg) -> String {
    if !argument.get_action().takes_values() {
        return String::new();
    }
    let choices = argument.get_possible_values();
    let named = choices.iter().filter(|choice| !choice.is_hide_set()).map(|choice| match choice.get_help() {
        Some(help) => format!("<br>`{}`: {}", choice.get_name(), cell(&help.to_string())),
        None => format!("<br>`{}`", choice.get_name()),
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use clap::builder::PossibleValue;

    use super::*;

    #[test]
    fn a_page_has_every_command_and_argument() {
        let flag = Arg::new("mode").short('m').long("mode").default_value("a").env("MODE").help("How | what");
        let mode = flag.value_parser([PossibleValue::new("a").help("First"), PossibleValue::new("b")]);
        let below = Command::new("go").about("Goes").visible_alias("walk").arg(Arg::new("PLACE").required(true));
        let page = flags(Command::new("tool").about("A tool").arg(mode).subcommand(below));
        assert!(page.contains("# tool\n\nA tool\n"), "{page}");
        let row = "| `-m, --mode MODE` | `a` | `MODE` | How \\| what<br>`a`: First<br>`b` |\n";
        assert!(page.contains(row), "{page}");
        assert!(page.contains("## tool go\n\nAlso: `walk`\n\nGoes\n\n"), "{page}");
        assert!(page.contains("| `PLACE` | required |  |  |\n"), "{page}");
        assert!(!page.contains("--help") && !page.contains("tool help"), "{page}");
    }
}
