module ringmaster.dev/webhooks-examples/website

go 1.26
