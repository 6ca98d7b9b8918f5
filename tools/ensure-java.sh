#!/usr/bin/env bash
# Prints the home of a Java that can run Spark: 17 or newer, with the module jdk.incubator.vector,
# which Spark asks for and trimmed runtimes lack. Without one: installs it (Debian or Ubuntu, as
# root), or says how to get it and exits 1. Only the path goes to standard output.
set -euo pipefail

readonly WANTED=17

say() { echo "$*" >&2; }

# Prints the home behind the `java` at $1 if that one will do.
suitable_home() {
    local java=$1 settings modules version home
    [[ -x $java ]] || return 1
    settings=$("$java" -XshowSettings:properties -version 2>&1) || return 1
    version=$(sed -n 's/^ *java\.specification\.version = \([0-9]*\).*/\1/p' <<<"$settings")
    home=$(sed -n 's/^ *java\.home = //p' <<<"$settings")
    [[ -n $version && $version -ge $WANTED ]] || return 1
    modules=$("$java" --list-modules 2>/dev/null) || return 1
    grep -q '^jdk\.incubator\.vector' <<<"$modules" || return 1
    echo "$home"
}

find_java() {
    local java
    for java in \
        "${JAVA_HOME:+$JAVA_HOME/bin/java}" \
        "$(command -v java || true)" \
        /usr/lib/jvm/*/bin/java \
        /opt/homebrew/opt/openjdk*/bin/java \
        /Library/Java/JavaVirtualMachines/*/Contents/Home/bin/java; do
        if suitable_home "$java"; then return 0; fi
    done
    return 1
}

# Debian and Ubuntu releases differ in which long-term Java they carry.
install_java() {
    local package
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    for package in openjdk-17-jre-headless openjdk-21-jre-headless default-jre-headless; do
        say "installing $package"
        if apt-get install -y -qq --no-install-recommends "$package" >&2; then return 0; fi
    done
    return 1
}

explain() {
    say "tflease: Spark needs Java $WANTED or newer (with the module jdk.incubator.vector), and none was found"
    say "in JAVA_HOME${JAVA_HOME:+ ($JAVA_HOME)}, on PATH or in /usr/lib/jvm. To get it:"
    say "    Debian, Ubuntu   sudo apt-get install openjdk-17-jre-headless"
    say "    Fedora, RHEL     sudo dnf install java-17-openjdk-headless   (newer Fedora: java-21-openjdk-headless)"
    say "    macOS            brew install openjdk@17"
    say "    conda            conda install -c conda-forge openjdk=17"
    say "then run the same command again; where Java lives in an unusual place, set JAVA_HOME to it."
}

if find_java; then exit 0; fi
if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null && install_java && find_java; then exit 0; fi
explain
exit 1
