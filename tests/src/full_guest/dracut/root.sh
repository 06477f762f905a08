#!/bin/sh
# The mount hook finds the root.
root=lab
rootok=1
