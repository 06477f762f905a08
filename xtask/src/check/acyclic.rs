//! No file of a package imports another one in a circle, directly or over others: whoever reads a folder can
//! begin at one end. Paths in code count as well, which public tools do not read, or only by compiling rust-analyzer
//! (`cargo modules dependencies --acyclic`, crates.io, cargo-modules 0.27: a type is in a circle with its own constructor).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use super::Report;
use crate::project;

/// Folders whose files are looked at, each a package's.
pub(super) const SOURCES: [&str; 6] = [
    "helper/carry/src",
    "helper/carry/kernel/src",
    "helper/core/src",
    "helper/wire/src",
    "helper/src",
    "helper/host/src",
];

/// A module's path within its package; the library or program itself has none.
type Module = Vec<String>;
/// Each module that is a file, and the ones it imports from.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

pub(super) fn check() -> Result<Report> {
    let mut findings = Vec::new();
    let mut count = 0;
    for source in SOURCES {
        let module = |file: &Path| module_of(file.strip_prefix(source).ok()?);
        let texts = project::texts(|file| module(file).is_some())?;
        let texts: BTreeMap<Module, String> = texts
            .into_iter()
            .filter_map(|(file, text)| Some((module(&file)?, text)))
            .collect();
        count += texts.len();
        let circles = circles(&imports(&texts)).into_iter();
        findings.extend(circles.map(|circle| format!("{source}: a circle of imports: {circle}")));
    }
    Ok(Report {
        looked_at: format!("{count} files in {}", SOURCES.join(" and ")),
        findings,
    })
}

/// The module that a file is; `None` for other files, and for programs and tests, which nothing imports.
fn module_of(inner: &Path) -> Option<Module> {
    let names = inner.with_extension("");
    let mut module: Module = names
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    let is_test = names == Path::new("main") || module.iter().any(|name| name == "tests");
    if module.last().is_some_and(|last| last == "mod") || names == Path::new("lib") {
        module.pop();
    }
    (inner.extension()? == "rs" && !is_test).then_some(module)
}

fn imports(texts: &BTreeMap<Module, String>) -> Imports {
    let is_file = |module: &Module| texts.contains_key(module);
    let imports_of = |(module, text): (&Module, &String)| {
        let targets = used_paths(text)
            .into_iter()
            .filter_map(|path| file_of(module, &path, is_file))
            .filter(|target| target != module);
        (module.clone(), targets.collect())
    };
    texts.iter().map(imports_of).collect()
}

/// The file that a path in `module` leads to; `None` if it leads out of the package.
fn file_of(module: &Module, path: &[String], is_file: impl Fn(&Module) -> bool) -> Option<Module> {
    let mut at = module.clone();
    let mut rest = path.iter().peekable();
    match path.first()?.as_str() {
        "crate" => at.clear(),
        "self" | "super" => {}
        child => {
            at.push(child.to_owned());
            is_file(&at).then_some(())?;
            at.pop();
        }
    }
    rest.next_if(|name| ["crate", "self"].contains(&name.as_str()));
    while rest.next_if(|name| *name == "super").is_some() {
        at.pop();
    }
    for name in rest {
        at.push(name.clone());
        if !is_file(&at) {
            at.pop();
            break;
        }
    }
    Some(at)
}

/// All paths that a file names, by `use` or in the middle of its code, tests at its end left out.
fn used_paths(text: &str) -> Vec<Vec<String>> {
    let lines: Vec<&str> = text.lines().collect();
    let tests = lines.windows(2).position(|pair| {
        pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    });
    let code: Vec<&str> = lines[..tests.unwrap_or(lines.len())]
        .iter()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let code = code.join("\n");
    let mut paths = Vec::new();
    for declaration in code.split_inclusive(';') {
        let start = declaration
            .match_indices("use ")
            .map(|(at, word)| (at, at + word.len()))
            .filter(|(at, _)| {
                declaration[..*at]
                    .chars()
                    .next_back()
                    .is_none_or(char::is_whitespace)
            })
            .last();
        let code = match (start, declaration.strip_suffix(';')) {
            (Some((at, start)), Some(tree)) => {
                expand(&[], tree.get(start..).unwrap_or_default(), &mut paths);
                &declaration[..at]
            }
            _ => declaration,
        };
        paths.extend(paths_in(code));
    }
    paths
}

/// Paths in the middle of code; how far something can be seen, as in `pub(in crate::a)`, imports nothing.
fn paths_in(code: &str) -> Vec<Vec<String>> {
    let code = code.replace("(in ", "(in_");
    let words = code.split(|c: char| !(c.is_alphanumeric() || "_:$".contains(c)));
    let names = |word: &str| word.split("::").map(str::to_owned).collect();
    let paths = words.filter(|word| word.contains("::") && !word.starts_with(':'));
    paths.map(names).collect()
}

/// Adds each path of a `use` tree such as `a::{b, c::d}`.
fn expand(before: &[String], tree: &str, paths: &mut Vec<Vec<String>>) {
    let (path, group) = match tree.split_once('{') {
        Some((path, group)) => (path, group.rsplit_once('}').map(|(group, _)| group)),
        None => (tree, None),
    };
    let names = path.split("::").map(|name| {
        let mut words = name.split_whitespace();
        words.next().unwrap_or_default().to_owned()
    });
    let mut whole = before.to_vec();
    whole.extend(names.filter(|name| !name.is_empty()));
    let Some(group) = group else {
        paths.push(whole);
        return;
    };
    let mut depth = 0;
    let parts = group.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    for part in parts.filter(|part| !part.trim().is_empty()) {
        expand(&whole, part, paths);
    }
}

/// One circle in words for each file that an import leads back to.
fn circles(imports: &Imports) -> Vec<String> {
    let mut found = Vec::new();
    let mut done = BTreeSet::new();
    for module in imports.keys() {
        follow(imports, module, &mut Vec::new(), &mut done, &mut found);
    }
    found
}

fn follow<'a>(
    imports: &'a Imports,
    module: &'a Module,
    way: &mut Vec<&'a Module>,
    done: &mut BTreeSet<&'a Module>,
    found: &mut Vec<String>,
) {
    if let Some(start) = way.iter().position(|before| *before == module) {
        let circle = way[start..].iter().chain([&module]);
        let names: Vec<String> = circle
            .map(|module| format!("crate::{}", module.join("::")))
            .collect();
        found.push(names.join(" -> "));
        return;
    }
    if done.contains(module) {
        return;
    }
    way.push(module);
    for next in imports.get(module).into_iter().flatten() {
        follow(imports, next, way, done, found);
    }
    way.pop();
    done.insert(module);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str) -> Module {
        path.split("::")
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }

    fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
        let texts = files
            .iter()
            .map(|(path, text)| (module(path), (*text).to_owned()));
        circles(&imports(&texts.collect()))
    }

    #[test]
    fn a_file_is_a_module() {
        let of = |path: &str| module_of(path.as_ref());
        assert_eq!(of("lib.rs"), Some(module("")));
        assert_eq!(of("plan/mod.rs"), Some(module("plan")));
        assert_eq!(of("plan/path.rs"), Some(module("plan::path")));
        assert_eq!(of("main.rs"), None);
        assert_eq!(of("tests/mod.rs"), None);
        assert_eq!(of("notes.md"), None);
    }

    #[test]
    fn a_circle_is_found_over_groups_children_and_parents() {
        let one_way = [
            (
                "",
                "mod a;\nmod b;\n#[cfg(test)]\nmod tests;\n\npub use a::A;\n",
            ),
            (
                "a",
                "use std::fmt;\nuse crate::b::{inner::{self, B}, C as D};\n",
            ),
            ("b", "mod inner;\n"),
            (
                "b::inner",
                "// use crate::a::A;\nuse super::C;\n#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n",
            ),
        ];
        assert_eq!(circles_of(&one_way), Vec::<String>::new());
        let mut child = one_way;
        child[2].1 = "mod inner;\n\npub(crate) use inner::B;\n";
        assert_eq!(
            circles_of(&child),
            ["crate::b -> crate::b::inner -> crate::b"]
        );
        let mut back = one_way;
        back[2].1 = "use crate::{\n    a::A,\n};\n";
        assert_eq!(circles_of(&back), ["crate::a -> crate::b -> crate::a"]);
    }

    #[test]
    fn a_circle_is_found_without_a_use() {
        let child = "use super::Step;\n\npub(in crate::a) fn next() -> Step {\n    Step\n}\n";
        let calls = [
            ("", "mod a;\n"),
            (
                "a",
                "mod b;\n\npub(crate) fn step() -> Step {\n    b::next()\n}\n",
            ),
            ("a::b", child),
        ];
        assert_eq!(circles_of(&calls), ["crate::a -> crate::a::b -> crate::a"]);
        let mut one_way = calls;
        one_way[1].1 = "mod b;\n\npub(crate) struct Step;\n";
        assert_eq!(circles_of(&one_way), Vec::<String>::new());
    }

    #[test]
    fn the_project_has_none_in_what_is_listed() {
        let report = check().unwrap();
        assert_eq!(report.findings, Vec::<String>::new());
    }
}
